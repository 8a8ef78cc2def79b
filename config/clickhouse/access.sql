-- Who may do what in ClickHouse: a role for those who ask, one for the sink, one for `creditstream init`.
--
-- Not run here: the engine of the tests has no CREATE ROLE. It has parsed every statement, and a test holds the names
-- equal to the tables and views of the migrations. Replace the database `credits` if yours has another name, run it as an
-- administrator after `creditstream init`, then give the roles to your users:
--   CREATE USER ann IDENTIFIED BY 'a password' DEFAULT ROLE creditstream_reader;

-- Reader: views only. They run with the rights of who ran `init`, so that no table need be open to the reader.
-- Settings may be changed below the limits, as Grafana does; data may not.
CREATE SETTINGS PROFILE IF NOT EXISTS creditstream_reader SETTINGS
    readonly = 2 CONST,
    max_execution_time = 30 MAX 30,
    max_memory_usage = 4000000000 MAX 4000000000,
    max_rows_to_read = 1000000000 MAX 1000000000,
    max_result_rows = 1000000 MAX 1000000,
    max_threads = 4 MAX 8;
CREATE ROLE IF NOT EXISTS creditstream_reader SETTINGS PROFILE 'creditstream_reader';
GRANT SELECT ON credits.balance_daily TO creditstream_reader;
GRANT SELECT ON credits.burn_rate TO creditstream_reader;
GRANT SELECT ON credits.credit_flow TO creditstream_reader;
GRANT SELECT ON credits.credits_outstanding TO creditstream_reader;
GRANT SELECT ON credits.expiring_credits TO creditstream_reader;
GRANT SELECT ON credits.freshness TO creditstream_reader;
GRANT SELECT ON credits.open_alerts TO creditstream_reader;
GRANT SELECT ON credits.plan_utilisation TO creditstream_reader;
GRANT SELECT ON credits.quarantine_summary TO creditstream_reader;
GRANT SELECT ON credits.runway TO creditstream_reader;
GRANT SELECT ON credits.topup_revenue TO creditstream_reader;
GRANT SELECT ON credits.upgrade_candidates TO creditstream_reader;
GRANT SELECT ON credits.usage_daily TO creditstream_reader;
GRANT SELECT ON credits.usage_daily_all TO creditstream_reader;
GRANT SELECT ON credits.usage_monthly TO creditstream_reader;
GRANT SELECT ON credits.wallet_statement TO creditstream_reader;

-- Dashboards, for Grafana, beside the role of the reader: the tables of which they show single rows.
CREATE ROLE IF NOT EXISTS creditstream_dashboards SETTINGS PROFILE 'creditstream_reader';
GRANT SELECT ON credits.alerts TO creditstream_dashboards;
GRANT SELECT ON credits.grants TO creditstream_dashboards;
GRANT SELECT ON credits.ledger_entries TO creditstream_dashboards;
GRANT SELECT ON credits.quarantined_events TO creditstream_dashboards;
GRANT SELECT ON credits.wallets TO creditstream_dashboards;

-- Writer, for the sink: it inserts, and alters or deletes nothing. It reads what it needs in order to go on where it was
-- (the last entries of a wallet) and to sum up days.
CREATE ROLE IF NOT EXISTS creditstream_writer;
GRANT INSERT ON credits.ledger_entries TO creditstream_writer;
GRANT INSERT ON credits.usage_hourly TO creditstream_writer;
GRANT INSERT ON credits.wallets TO creditstream_writer;
GRANT INSERT ON credits.grants TO creditstream_writer;
GRANT INSERT ON credits.alerts TO creditstream_writer;
GRANT INSERT ON credits.quarantined_events TO creditstream_writer;
GRANT INSERT ON credits.usage_by_day TO creditstream_writer;
GRANT INSERT ON credits.credits_by_day TO creditstream_writer;
GRANT INSERT ON credits.days_refreshed TO creditstream_writer;
GRANT SELECT ON credits.ledger_entries TO creditstream_writer;
GRANT SELECT ON credits.usage_hourly TO creditstream_writer;
GRANT SELECT ON credits.days_refreshed TO creditstream_writer;

-- Owner, for `creditstream init`, `verify` and `rebuild-clickhouse`: makes and changes tables and views, compares all tables, and
-- puts new ones in the place of old. ALTER TABLE has the deletes of `verify --repair` in it. Views keep running with this
-- user's rights: do not drop the user.
CREATE ROLE IF NOT EXISTS creditstream_owner;
GRANT CREATE DATABASE, CREATE TABLE, DROP TABLE, TRUNCATE, CREATE VIEW, DROP VIEW, ALTER TABLE, ALTER VIEW, SELECT, INSERT ON credits.* TO creditstream_owner;
