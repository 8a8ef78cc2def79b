-- The rows of usage_by_day from one day to another, computed anew.
INSERT INTO usage_by_day
    (day, plan, asset_type, model, jobs, images, video_seconds, credits_charged, credits_reversed, credits_refused, version)
SELECT
    toDate(hour) AS day, plan, asset_type, model,
    sum(jobs), sum(images), sum(video_seconds), sum(credits_charged), sum(credits_reversed), sum(credits_refused), sum(seq)
FROM usage_hourly FINAL
WHERE hour >= toDateTime({first:Date}, 'UTC') AND hour < toDateTime({last:Date} + 1, 'UTC')
GROUP BY day, plan, asset_type, model
