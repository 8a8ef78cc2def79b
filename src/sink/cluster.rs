//! The migrations as a cluster has them: each table becomes a replicated table `<name>_local` on every host, sharded by the
//! first column of its key, and a Distributed front that has the table's own name.
//!
//! **Invariant:** rows of one key stand in one shard, so that an upsert meets what it replaces, and `FINAL` through the
//! front reads right. Who asks or inserts names the front; only what a front cannot do names `<name>_local`. Pure.

/// One host's table of a front.
pub fn local(table: &str) -> String {
    format!("{table}_local")
}

/// `ON CLUSTER`, or nothing without one.
pub fn on(cluster: &str) -> String {
    if cluster.is_empty() { String::new() } else { format!(" ON CLUSTER `{cluster}`") }
}

/// The statements that do on a cluster what one of a migration does on a single server; `None`: it is none that is known.
pub fn rewrite(statement: &str, database: &str, cluster: &str) -> Option<Vec<String>> {
    let code: Vec<&str> = statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n");
    let (code, on) = (code.trim(), on(cluster));
    let of = |head: &str| {
        let (name, rest) = code.strip_prefix(head)?.split_at_checked(name_end(code.strip_prefix(head)?))?;
        Some((name.to_owned(), rest.to_owned()))
    };
    if let Some((table, rest)) = of("CREATE TABLE IF NOT EXISTS ") {
        let (_, key) = rest.split_once("ORDER BY ")?;
        let key = key.trim_start_matches('(');
        let key = key.get(..name_end(key))?;
        let comment = rest.get(rest.rfind("COMMENT ")?..)?;
        let local = local(&table);
        return Some(vec![
            format!("CREATE TABLE IF NOT EXISTS {local}{on}{}", replicated(&rest)),
            format!(
                "CREATE TABLE IF NOT EXISTS {table}{on} AS {local} \
                 ENGINE = Distributed('{cluster}', '{database}', '{local}', cityHash64({key})) {comment}"
            ),
        ]);
    }
    if let Some((view, rest)) = of("CREATE VIEW IF NOT EXISTS ") {
        let (body, comment) = rest.split_at_checked(rest.rfind("\nCOMMENT ")?)?;
        // A front has no such column. It only was the faster way to the month.
        let body = body.replace("e._partition_value.1", "toYYYYMM(e.posted_at)");
        // What a view joins may stand in other shards.
        let settings = "SETTINGS distributed_product_mode = 'global'";
        return Some(vec![format!("CREATE VIEW IF NOT EXISTS {view}{on}{body}\n{settings}{comment}")]);
    }
    if let Some((view, rest)) = of("DROP VIEW IF EXISTS ") {
        return Some(vec![format!("DROP VIEW IF EXISTS {view}{on}{rest}")]);
    }
    match of("ALTER TABLE ") {
        // A front has no indices.
        Some((table, rest)) if rest.starts_with(" ADD INDEX ") => {
            Some(vec![format!("ALTER TABLE {}{on}{rest}", local(&table))])
        }
        _ => None,
    }
}

fn name_end(text: &str) -> usize {
    text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len())
}

/// The path follows the table's UUID, so that a table that is renamed keeps its own.
fn replicated(rest: &str) -> String {
    const PLACE: &str = "ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}'";
    rest.replace("ReplacingMergeTree(", &format!("{PLACE}, "))
        .replace("ENGINE = ReplacingMergeTree\n", &format!("ENGINE = {PLACE})\n"))
        .replace("ENGINE = ReplacingMergeTree ", &format!("ENGINE = {PLACE}) "))
}
