-- The rows of credits_by_day from one day to another, computed anew.
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
    sum(arraySum((kind, change) -> if(kind = 'plan', change, 0), grant_effects.kind, grant_effects.credits)),
    sum(arraySum((kind, change) -> if(kind = 'topup', change, 0), grant_effects.kind, grant_effects.credits)),
    sum(arraySum((kind, change) -> if(kind = 'adjustment', change, 0), grant_effects.kind, grant_effects.credits)),
    countIf(entry_type = 'granted' AND event_type = 'topup.purchased'),
    sumIf(credits, entry_type = 'granted' AND event_type = 'topup.purchased'),
    sumIf(amount_usd, entry_type = 'granted' AND event_type = 'topup.purchased'),
    count()
FROM ledger_entries FINAL
WHERE posted_at >= toDateTime64({first:Date}, 3, 'UTC') AND posted_at < toDateTime64({last:Date} + 1, 3, 'UTC')
GROUP BY day, plan
