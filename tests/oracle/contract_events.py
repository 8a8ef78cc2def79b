"""What contract events and the calendar do to a wallet (domain §2, §4)."""
import copy

import times
from contracts import Change, Contract


def started(wallet, data, at):
    """The state checks and the booking; its allocations come due by the calendar, past ones at once."""
    contract_id = data["contract_id"]
    if contract_id in wallet.contracts:
        wallet.hit("contract-id-used-again")
        return "id_conflict"
    months = int(data.get("term_months") or 12)
    start = times.parse(data["starts_at"])
    end = times.plus_months(start, months)
    for other in wallet.contracts.values():
        if other.overlaps(start, end):
            wallet.hit("contract-overlap-conflict")
            return "contract_conflict"
        if other.end() == start:
            wallet.hit("contract-begins-where-another-ends")
    wallet.contracts[contract_id] = Contract(contract_id, start, data["plan"], months)
    wallet.post("contract_started")
    wallet.hit("contract-started-%s" % ("in-past" if start < at else "in-future" if start > at else "now"))
    return None


def known_and_running(wallet, data, at):
    """The contract, unless unknown or over at the event's time."""
    contract = wallet.contracts.get(data["contract_id"])
    if contract is None:
        wallet.hit("contract-unknown")
        return None
    if at >= contract.end():
        wallet.hit("contract-over-at-event-time")
        return None
    return contract


def plan_changed(wallet, data, at):
    """Books the change; what it is worth comes due at its instant. It reaches back no further than the
    start of the month under way at the event's time."""
    contract = known_and_running(wallet, data, at)
    if contract is None:
        return "no_contract"
    asked = at if data.get("effective_at") is None else times.parse(data["effective_at"])
    floor = contract.start if at < contract.start else contract.month(contract.month_under_way(at))
    effective = max(asked, floor)
    if asked < floor:
        wallet.hit("change-reach-back-is-kept-to-the-month")
    elif asked < at:
        wallet.hit("change-reaches-back")
    elif asked > at:
        wallet.hit("change-booked-ahead")
    if effective >= contract.end():
        wallet.hit("change-booked-past-the-end")
    if contract.end_posted:
        wallet.hit("change-late-after-end-was-posted")
    if any(other.effective == effective for other in contract.changes):
        wallet.hit("change-at-instant-of-another")
    contract.changes.append(Change(effective, data["plan"]))
    wallet.post("contract_changed")
    return None


def renewed(wallet, data, at):
    """A new term from the seam on. Time of the event decides, however late it arrives."""
    contract = wallet.contracts.get(data["contract_id"])
    if contract is None:
        wallet.hit("contract-unknown")
        return "no_contract"
    if contract.cancelled:
        wallet.hit("renewal-after-cancellation")
        return "no_contract"
    if at >= contract.end():
        wallet.hit("renewal-too-late")
        return "no_contract"
    if contract.term_under_way(at) < len(contract.seams) - 1:
        wallet.hit("renewal-while-one-is-booked")
        return "contract_conflict"
    first = contract.seams[-1]
    length = first - (contract.seams[-2] if len(contract.seams) > 1 else 0)
    if data.get("term_months") is not None:
        length = int(data["term_months"])
        wallet.hit("renewal-with-own-length")
    seam, end = contract.month(first), contract.month(first + length)
    for other in wallet.contracts.values():
        if other is not contract and other.overlaps(seam, end):
            wallet.hit("renewal-overlap-conflict")
            return "contract_conflict"
    if data.get("plan") is not None:
        contract.renewal_plans[first] = data["plan"]
        wallet.hit("renewal-with-own-plan")
    contract.seams.append(first + length)
    if contract.end_posted:
        contract.end_posted = False
        wallet.hit("renewal-late-restores")
    else:
        wallet.hit("renewal-in-time")
    wallet.post("contract_renewed")
    return None


def cancelled(wallet, data, at):
    """Moves the end, never later; a term booked beyond the one under way falls away; plan credits end
    with the contract."""
    contract = known_and_running(wallet, data, at)
    if contract is None:
        return "no_contract"
    term = contract.term_under_way(at)
    if term < len(contract.seams) - 1:
        begun = contract.next_month > contract.seams[term]
        wallet.hit("cancel-late-drops-begun-term" if begun else "cancel-drops-booked-renewal")
        contract.seams = contract.seams[:term + 1]
        contract.renewal_plans = {seam: plan for seam, plan in contract.renewal_plans.items()
                                  if seam < contract.seams[-1]}
    before = contract.end()
    asked = before if data.get("effective_at") is None else times.parse(data["effective_at"])
    if asked < contract.start:
        wallet.hit("cancel-kept-inside-start")
    if asked > before:
        wallet.hit("cancel-earlier-end-stands" if contract.cancelled else "cancel-kept-inside-end")
    elif asked < before:
        wallet.hit("cancel-moves-the-end" if not contract.cancelled else "cancel-second-moves-it-earlier")
    elif not contract.cancelled:
        wallet.hit("cancel-at-term-end")
    if contract.end_posted:
        wallet.hit("cancel-late-after-end-was-posted")
    contract.cut = max(contract.start, min(asked, before))
    contract.cancelled = True
    for grant in wallet.open_grants:
        if grant.contract is contract and grant.expires_at > contract.cut:
            grant.expires_at = contract.cut
            if grant.remaining:
                wallet.hit("cancel-cuts-what-is-left-of-plan-credits")
    wallet.post("contract_changed")
    return None


# The calendar

def allocate(wallet, contract, number):
    """The month's allocation, at the month's start."""
    begins = contract.month(number)
    credits = contract.worth(number, wallet.prices)
    contract.next_month = number + 1
    contract.granted[number] = credits
    if wallet.prices.plan(contract.plan_at(begins), begins) is None:
        wallet.hit("allocation-of-a-plan-off-sale")
    if number in contract.seams:
        wallet.hit("allocation-first-of-renewed-term")
        if any(change.effective == begins for change in contract.changes):
            wallet.hit("change-at-seam-goes-over-renewal")
    if times.day_of_month(begins) != times.day_of_month(contract.start):
        wallet.hit("allocation-day-clipped-to-month")
    elif times.day_of_month(contract.start) > 28:
        wallet.hit("allocation-back-on-its-anchor")
    if times.month_and_day(begins) == (2, 29):
        wallet.hit("allocation-on-leap-day")
    for change in contract.changes:
        if change.effective == begins:
            wallet.hit("change-at-anniversary-counts-for-that-month")
    wallet.grant("plan", ("plan", contract.id, number, 0), credits, begins,
                 contract.term_end_of_month(number), contract)


def apply_change(wallet, contract, order):
    """A plan comes into force. Every month already granted that is now worth more gets the difference:
    granted at the change, or at the month's start where that is later."""
    change = contract.changes[order]
    put_into_force(contract, change)
    before = contract.plan_at(change.effective - 1) or contract.first_plan
    if change.effective == contract.start:
        wallet.hit("change-at-start")
    missing = differences(contract, change, wallet.prices)
    gave = len(missing)
    for number, difference in missing:
        contract.granted[number] += difference
        wallet.grant("plan", ("plan", contract.id, number, wallet.order + 1), difference,
                     max(change.effective, contract.month(number)),
                     contract.term_end_of_month(number), contract)
    rise = wallet.prices.allocation(change.plan, change.effective) - wallet.prices.allocation(before, change.effective)
    if gave > 1:
        wallet.hit("change-late-raises-several-months")
    if gave:
        wallet.hit("change-up-grants-difference")
    elif rise > 0 and contract.granted and contract.month(contract.next_month) > change.effective:
        wallet.hit("change-up-again-does-not-pay-twice")
    elif rise < 0:
        wallet.hit("change-down-claws-nothing-back")


def put_into_force(contract, change):
    """Another change for the same instant goes over it, or it over that: only the last one is ever in force."""
    for other in contract.changes:
        other.applied = other.applied or other.effective == change.effective


def differences(contract, change, prices):
    """(month, credits) of each month that was granted less than it is worth by a change that has come into force."""
    missing = []
    for number in sorted(contract.granted):
        if contract.month(number + 1) > change.effective and contract.month(number) < contract.end():
            difference = contract.worth(number, prices) - contract.granted[number]
            if difference > 0:
                missing.append((number, difference))
    return missing


def credits_due(wallet):
    """Whether the calendar, up to the latest instant of the wallet's entries, has credits for it that are not posted:
    its months and changes are gone through one by one, on a copy. What would post nothing is not waited for."""
    for contract in wallet.contracts.values():
        ahead = copy.deepcopy(contract)
        while True:
            items = [item for item in ahead.due() if item[1] in (3, 4) and item[0] <= wallet.seen_until]
            if not items:
                break
            _, rank, detail = min(items)
            if rank == 4:
                credits = ahead.worth(detail, wallet.prices)
                ahead.granted[detail] = credits
                ahead.next_month = detail + 1
            else:
                change = ahead.changes[detail]
                put_into_force(ahead, change)
                credits = sum(more for _, more in differences(ahead, change, wallet.prices))
            if credits:
                wallet.hit("level-waits-for-a-difference" if rank == 3 else "level-waits-for-an-allocation")
                return True
            wallet.hit("level-does-not-wait-for-nothing")
    return False


def due(wallet, lateness, clock):
    """What the calendar holds for the wallet: the earliest instant of anything, and everything that has
    come due as (when, rank, order among equals, what to do)."""
    earliest, items = float("inf"), []
    for grant in wallet.open_grants:
        if grant.expires_at is not None:
            when = grant.expires_at + lateness
            if when < earliest:
                earliest = when
            if when <= clock:
                items.append((when, 0, grant.key, ("expire", grant)))
    for contract in wallet.contracts.values():
        for when, rank, detail in contract.due():
            earliest = min(earliest, when)
            if when <= clock:
                what = {1: "end", 3: "change", 4: "allocate"}[rank]
                items.append((when, rank, (contract.id, detail or 0), (what, contract, detail)))
    for key, hold in wallet.holds.items():
        earliest = min(earliest, hold.deadline)
        if hold.deadline <= clock:
            items.append((hold.deadline, 5, (key[0], key[1] or ""), ("timeout", key)))
    for item in wallet.warnings.due():
        earliest = min(earliest, item[0])
        if item[0] <= clock:
            items.append(item)
    return earliest, items


def post_due(wallet, item):
    """Posts one of them. What its alert says, where it warns of something."""
    when, what = item[0], item[3]
    if what[0] == "expire":
        grant = what[1]
        credits, grant.remaining = grant.remaining, 0
        grant.expiry_posted = True
        wallet.open_grants.remove(grant)
        if credits:
            wallet.post("expired", credits=-credits)
            wallet.hit("expired-" + grant.kind)
            if grant.granted_at > grant.expires_at:
                wallet.hit("expired-month-granted-after-the-moved-end")
        else:
            wallet.hit("expired-nothing-left-no-entry")
    elif what[0] == "end":
        what[1].end_posted = True
        wallet.post("contract_ended")
        if what[1].start == what[1].end():
            wallet.hit("contract-cancelled-to-its-start")
        wallet.hit("contract-ended")
    elif what[0] == "change":
        apply_change(wallet, what[1], what[2])
    elif what[0] == "allocate":
        allocate(wallet, what[1], what[2])
    elif what[0] == "timeout":
        hold = wallet.holds[what[1]]
        credits = wallet.release(what[1])
        wallet.timed_out.add(what[1])
        wallet.post("noted", amount=credits)
        wallet.hit("hold-timeout")
        if credits < hold.made:
            wallet.hit("hold-timeout-of-what-assets-left")
        return {"kind": "hold_timed_out", "amount": credits, "job_id": what[1][0]}
    else:
        return wallet.warnings.post(when, what)
    return None
