//! librdkafka's settings, and secrets, of which most are among them.

use super::*;

#[test]
fn librdkafka_properties_come_from_the_file_in_any_notation_and_from_the_environment() {
    let text = "[kafka.properties]\n'security.protocol' = 'SASL_SSL'\nsasl.mechanisms = 'PLAIN'\nlinger.ms = 5\n\
                'log.connection.close' = false\nsasl.username = 'u'\n";
    let env = [
        ("CREDITSTREAM__KAFKA__PROPERTIES__SECURITY__PROTOCOL", "SSL"),
        ("CREDITSTREAM__KAFKA__PROPERTIES__SASL_PASSWORD", "hidden"),
        ("CREDITSTREAM__KAFKA__PROPERTIES__SASL_USERNAME", ""),
    ];
    let config = load(text, &env).unwrap();
    let properties: Vec<(&str, &str)> = config
        .kafka
        .properties
        .as_map()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("linger.ms", "5"),
        ("log.connection.close", "false"),
        ("sasl.mechanisms", "PLAIN"),
        ("sasl.password", "hidden"),
        ("security.protocol", "SSL"),
    ];
    assert_eq!(properties, expected);
}

#[test]
fn properties_that_correctness_depends_on_are_faults() {
    let reserved = [
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "isolation.level",
        "partition.assignment.strategy",
        "transactional.id",
    ];
    let text: Vec<String> = reserved.iter().map(|name| format!("'{name}' = 'x'")).collect();
    let found = faults(&format!("[kafka.properties]\n{}", text.join("\n")), &[]);
    assert_eq!(found.len(), reserved.len());
    for (fault, name) in found.iter().zip(reserved) {
        let expected = format!("kafka.properties.{name} = \"x\": may not be set here: ");
        assert!(fault.starts_with(&expected), "{fault}");
    }
}

#[test]
fn what_librdkafka_does_not_take_is_a_fault_that_shows_no_secret() {
    let unknown = only_fault("[kafka.properties]\n'security.protokol' = 'SSL'");
    assert!(unknown.contains("security.protokol = \"SSL\": librdkafka does not take it: "), "{unknown}");
    let bad = only_fault("[kafka.properties]\n'security.protocol' = 'SSH'");
    assert!(bad.contains("librdkafka does not take it: "), "{bad}");
    let list = only_fault("[kafka.properties]\n'security.protocol' = ['SSL']");
    assert!(list.contains("must be a string, an integer or a boolean"), "{list}");
    let secret = only_fault("[kafka.properties]\n'sasl.passwort.secret' = 'hidden'");
    assert!(!secret.contains("hidden"), "{secret}");
    let a_table = only_fault("[clickhouse.url]\npassword = 'hidden'");
    assert_eq!(a_table, "clickhouse.url = {…}: must be a string");
    let not_a_table = only_fault("[kafka]\nproperties = 'sasl.password=hidden'");
    assert_eq!(not_a_table, "kafka.properties = ***: must be a section");
}

const WITH_SECRETS: &str = "[clickhouse]\npassword = 'hidden-1'\n[kafka.properties]\n'sasl.password' = 'hidden-2'\n\
     'ssl.key.pem' = 'hidden-3'\n'ssl.keystore.password' = 'hidden-4'\n'ssl.key.password' = 'hidden-5'\n\
     'sasl.oauthbearer.config' = 'hidden-6'\n'sasl.username' = 'shown'\n";

#[test]
fn secrets_are_in_neither_debug_nor_effective_toml() {
    let config = load(WITH_SECRETS, &[]).unwrap();
    assert_eq!(config.clickhouse.password.expose(), "hidden-1");
    for text in [format!("{config:?}"), format!("{config:#?}"), config.effective_toml()] {
        assert!(!text.contains("hidden"), "{text}");
        assert!(text.contains("***") && text.contains("shown"), "{text}");
    }
    assert!(
        format!("{:?}", Config::default().clickhouse).contains(r#"password: """#),
        "none is told from hidden"
    );
}

#[test]
fn effective_toml_loads_again_and_a_masked_secret_in_it_is_a_fault() {
    let text = "[kafka]\nbrokers = 'a:1, b:2'\n[kafka.properties]\n'security.protocol' = 'SSL'\n[ledger]\n\
                static_membership = true\n[log]\nformat = 'json'\nfilter = 'creditstream=debug,warn'\n";
    let config = load(text, &[]).unwrap();
    assert_eq!(load(&config.effective_toml(), &[]).unwrap(), config);

    let masked = load(WITH_SECRETS, &[]).unwrap().effective_toml();
    let found = faults(&masked, &[]);
    assert_eq!(found.len(), 6, "{found:#?}");
    let expected =
        "clickhouse.password = ***: must be the secret itself; *** is what check-config shows in its place";
    assert!(found.contains(&expected.to_owned()), "{found:#?}");
    assert_eq!(load(&masked.replace("\"***\"", "'again'"), &[]).unwrap().effective_toml(), masked);
}
