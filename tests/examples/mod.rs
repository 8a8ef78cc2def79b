//! The examples of docs/events.md. A comment before a fenced block says what must come of it:
//! `<!-- claim: argument -->`. Shared by `tests/docs.rs` (decoder and schema) and the ledger's own tests (the rest).

/// An example.
pub struct Example {
    /// Line of its comment.
    pub line: usize,
    /// `example`, `example-binary`, `outcome-sequence`, `quarantine`, `quarantine-padded` or `quarantine-sequence`.
    pub claim: String,
    /// A type, a reason, outcomes.
    pub argument: String,
    /// One record, or several where it is a sequence.
    pub records: Vec<Record>,
    /// What is quoted below it: the sentence of the last record.
    pub sentence: Option<String>,
}

/// A record of an example.
pub struct Record {
    /// Headers of a binary one.
    pub headers: Vec<(String, String)>,
    /// Value.
    pub value: String,
}

impl Record {
    /// The type, found without a decoder.
    pub fn kind(&self) -> String {
        if let Some((_, kind)) = self.headers.iter().find(|(name, _)| name == "ce_type") {
            return kind.clone();
        }
        let value: serde_json::Value = serde_json::from_str(&self.value).unwrap_or_default();
        value["type"].as_str().unwrap_or_default().to_owned()
    }
}

/// Whether a type belongs on the wallet topic.
pub fn is_wallet_type(kind: &str) -> bool {
    ["contract.", "topup.", "wallet."].iter().any(|prefix| kind.starts_with(prefix))
}

/// All of them. Panics where a comment stands without its block.
pub fn examples() -> Vec<Example> {
    let text = include_str!("../../docs/events.md");
    let mut lines = text.lines().enumerate().peekable();
    let mut examples = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let Some((claim, argument)) = comment.split_once(": ") else { panic!("line {}: {line}", number + 1) };
        let fence = lines.next().map(|(_, fence)| fence).unwrap_or_default();
        assert!(fence.starts_with("```"), "line {}: a comment without its block", number + 1);
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        // Up to the quote or whatever else stands there.
        while lines.next_if(|(_, line)| line.is_empty()).is_some() {}
        let mut sentence: Option<String> = None;
        while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("> ")) {
            let words = line.trim_start_matches("> ");
            sentence = Some(sentence.map_or(words.to_owned(), |before| format!("{before} {words}")));
        }
        examples.push(Example {
            line: number + 1,
            claim: claim.to_owned(),
            argument: argument.to_owned(),
            records: records(claim, argument, &body),
            sentence,
        });
    }
    examples
}

fn records(claim: &str, argument: &str, body: &[&str]) -> Vec<Record> {
    let structured = |value: String| Record { headers: Vec::new(), value };
    match claim {
        "example-binary" => {
            let (headers, value) =
                body.split_at(body.iter().position(|line| line.is_empty()).unwrap_or(body.len()));
            let header =
                |line: &&str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
            vec![Record { headers: headers.iter().filter_map(header).collect(), value: value.join("\n") }]
        }
        "outcome-sequence" | "quarantine-sequence" => {
            body.iter().map(|line| structured((*line).to_owned())).collect()
        }
        "quarantine-padded" => {
            let bytes: usize =
                argument.split_whitespace().last().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
            let value = body.join("\n");
            let padding = bytes.saturating_sub(value.len());
            vec![structured(value + &" ".repeat(padding))]
        }
        _ => vec![structured(body.join("\n"))],
    }
}
