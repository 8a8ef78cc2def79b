"""The names of the rules, by which lives tell what they met: every one is to be met often enough (CONTRIBUTING.md)."""

NAMES = """
adjustment-id-used-again adjustment-up-for-ever adjustment-up-with-expiry
alert-of-level-before-the-warning-of-one-unit alerts-of-several-levels-in-one-step
alerts-of-several-warnings-in-one-step allocation-back-on-its-anchor allocation-day-clipped-to-month
allocation-first-of-renewed-term allocation-of-a-plan-off-sale allocation-on-leap-day
asset-forgotten-before-its-job burn-adjustment-before-topup burn-plan-before-adjustment burn-plan-before-topup
business-id-of-another-kind-is-free cancel-at-term-end cancel-cuts-what-is-left-of-plan-credits
cancel-drops-booked-renewal cancel-earlier-end-stands cancel-kept-inside-end cancel-kept-inside-start
cancel-late-after-end-was-posted cancel-late-drops-begun-term cancel-moves-the-end
cancel-second-moves-it-earlier cancelled-keeps-charge cancelled-without-hold-noted
change-at-anniversary-counts-for-that-month change-at-instant-of-another change-at-seam-goes-over-renewal
change-at-start change-booked-ahead change-booked-past-the-end change-down-claws-nothing-back
change-late-after-end-was-posted change-late-raises-several-months change-reach-back-is-kept-to-the-month
change-reaches-back change-up-again-does-not-pay-twice change-up-grants-difference
charge-after-cancellation-stands charge-all-overdraft charge-at-exact-expiry-skips-grant
charge-covered-though-overdraft-past-limit charge-covered-under-zero-limit charge-from-one-grant
charge-from-three-grants-or-more charge-from-two-grants charge-of-zero-is-posted
charge-part-grants-part-overdraft charge-skips-expired-grant-still-in-balance charge-takes-available-to-zero
charge-with-hold charge-without-hold clock-not-beyond-the-wall contract-begins-where-another-ends
contract-cancelled-to-its-start contract-ended contract-id-used-again contract-over-at-event-time
contract-overlap-conflict contract-started-in-future contract-started-in-past contract-started-now
contract-unknown cost-at-the-first-instant-of-a-rate-card cost-by-later-rate-card cost-by-models-own-rate
cost-rounded-up debit-drawn-from-grants debit-goes-past-the-limit debit-into-overdraft
due-by-its-time-posted-before-the-event due-posted-before-the-event-of-one-step due-same-instant-by-kind
due-same-instant-same-kind-by-id duplicate duplicate-with-unknown-or-null-field
event-before-what-is-due-at-its-time event-late-but-accepted exactly-at-horizon-is-in-time
exactly-at-skew-is-in-time expired-adjustment expired-month-granted-after-the-moved-end
expired-nothing-left-no-entry expired-plan expiring-1-days expiring-30-days expiring-7-days
expiring-again-as-the-end-has-moved expiring-as-credits-came-back expiring-in-the-last-millisecond
expiring-late expiring-late-a-millisecond-before-the-next expiring-none-at-the-expiry
expiring-none-where-nothing-is-left expiring-not-again-as-credits-came-back expiring-of-another-contract
expiring-of-the-next-term expiring-on-its-day expiring-several-thresholds-in-one-step
expiring-skips-in-the-instant-of-the-next expiring-skips-thresholds failed-before-charge free-event
grant-pays-for-usage-older-than-itself grant-pays-last-ms-before-expiry hold-after-charge
hold-after-its-own-timeout hold-after-job-ended hold-after-refund hold-again-after-timeout hold-made-for-asset
hold-made-for-job hold-makes-available-negative hold-of-own-asset-released hold-of-zero hold-partial-by-asset
hold-released-by-cancelled hold-released-by-failed hold-released-by-rejected hold-second-for-job
hold-several-released-with-job hold-timeout hold-timeout-of-what-assets-left hold-used-up-by-asset
hold-whole-completion-ends-several id-conflict-by-data-alone id-conflict-by-type
identity-forgotten-after-horizon job-conflict-after-refusal job-conflict-kind-mixed
job-conflict-second-completion job-forgotten-after-horizon late-usage-paid-by-then-valid-grant
level-base-is-last-topup level-base-is-nothing level-does-not-wait-for-nothing
level-kept-by-hysteresis-critical level-kept-by-hysteresis-low level-kept-by-hysteresis-overdrawn
level-recovers-to-critical level-recovers-to-low level-recovers-to-ok level-waits-for-a-difference
level-waits-for-an-allocation level-worsens-to-critical level-worsens-to-exhausted level-worsens-to-low
level-worsens-to-overdrawn limit-exactly-reached limit-none-lifts-the-plans limit-of-a-plan-off-sale
limit-of-later-plans-version limits-overdraft-none limits-overdraft-number limits-overdraft-plan
limits-percent-number limits-percent-plan overdraft-grows-and-its-time-runs-on
overdraft-not-repaid-by-invalid-grant overdraft-paid-after-its-warning
overdraft-paid-in-part-and-its-time-runs-on overdraft-paid-in-time overdraft-repaid-by-adjustment
overdraft-repaid-by-plan overdraft-repaid-by-topup overdraft-repaid-in-full overdraft-repaid-in-part
overdraft-warned overdraft-warned-again overdraft-warned-late overdraft-warned-on-its-day
quarantined-bad-value quarantined-contract-conflict quarantined-id-conflict quarantined-job-conflict
quarantined-missing-field quarantined-no-contract quarantined-not-cloudevent quarantined-too-far-ahead
quarantined-too-old quarantined-unknown-plan quarantined-unknown-topup quarantined-unknown-type
refund-keeps-hold refunded-before-charge refused-by-plan-limit refused-by-wallet-limit refused-by-zero-limit
rejected-before-charge renewal-after-cancellation renewal-in-time renewal-late-restores
renewal-overlap-conflict renewal-too-late renewal-while-one-is-booked renewal-with-own-length
renewal-with-own-plan reversal-against-open-overdraft reversal-by-failed reversal-by-refunded
reversal-by-rejected reversal-in-time-into-grant-already-closed reversal-into-expired-grant
reversal-into-grant-past-expiry-not-posted reversal-of-asset-of-whole-charge-noted
reversal-of-one-asset-of-several reversal-of-refused-noted reversal-of-whole-job-with-several-assets
reversal-past-the-horizon-noted reversal-repays-overdraft reversal-second-noted
reversal-to-grant-that-repaid-before-the-horizon reversal-to-repaying-grant
reversal-to-repaying-grants-latest-first reversal-to-several-grants runway-armed-again
runway-armed-again-by-exactly-three-days runway-armed-again-by-no-charges runway-at-midnight runway-at-once
runway-counts-what-was-given-back runway-in-a-whole-week runway-in-the-first-week
runway-late-charge-in-its-own-day runway-late-charge-in-the-oldest-day runway-late-charge-is-the-earliest
runway-late-charge-too-old-to-count runway-none-where-nothing-is-available runway-not-armed-again-by-midnights
runway-not-armed-again-by-nothing-at-all runway-not-armed-again-by-nothing-available
runway-of-exactly-three-days-is-enough runway-warned-again threshold-of-the-plan-critical
threshold-of-the-plan-low too-late-for-expired-grant-next-one-pays too-old-by-record-time-alone
topup-at-the-first-instant-of-its-packs topup-beside-contract topup-id-used-again topup-without-contract
undone-as-later-asset-of-job undone-asset-does-not-undo-whole-charge undone-before-its-charge
warning-after-what-else-is-due warning-waits-for-the-clock warnings-of-one-instant
""".split()

_KNOWN = frozenset(NAMES)


def hit(hits, name):
    """Counts that a life met a rule. A name that is not listed is an error: nobody would miss it."""
    if name not in _KNOWN:
        raise KeyError(f"{name} is not listed in rules.py")
    hits[name] = hits.get(name, 0) + 1
