-- The rows of credits_by_day from one day to another, computed anew. Copies of an entry are alike, and are taken out
-- without FINAL: it would merge the whole month for the sake of one day.
INSERT INTO credits_by_day
    (day, plan, credits_granted, credits_charged, credits_reversed, credits_expired, credits_refused, adjusted_up, adjusted_down,
     balance_change, plan_change, topup_change, adjustment_change, topups, topup_credits, topup_usd, version)
SELECT
    toDate(posted_at) AS day, plan,
    sumIf(credits, entry_type = 'granted'),
    -sumIf(credits, entry_type = 'charged'),
    sumIf(credits, entry_type = 'reversed'),
    -sumIf(credits, entry_type = 'expired'),
    sumIf(amount, entry_type = 'refused'),
    sumIf(credits, entry_type = 'adjusted' AND credits > 0),
    -sumIf(credits, entry_type = 'adjusted' AND credits < 0),
    sum(credits),
    sum(arraySum((kind, change) -> if(kind = 'plan', change, 0), kinds, changes)),
    sum(arraySum((kind, change) -> if(kind = 'topup', change, 0), kinds, changes)),
    sum(arraySum((kind, change) -> if(kind = 'adjustment', change, 0), kinds, changes)),
    countIf(entry_type = 'granted' AND event_type = 'topup.purchased'),
    sumIf(credits, entry_type = 'granted' AND event_type = 'topup.purchased'),
    sumIf(amount_usd, entry_type = 'granted' AND event_type = 'topup.purchased'),
    count()
FROM
(
    SELECT posted_at, plan, entry_type, event_type, credits, amount, amount_usd, grant_effects.kind AS kinds, grant_effects.credits AS changes
    FROM ledger_entries
    WHERE posted_at >= toDateTime64({first:Date}, 3, 'UTC') AND posted_at < toDateTime64({last:Date} + 1, 3, 'UTC')
    LIMIT 1 BY wallet_id, seq
)
GROUP BY day, plan
