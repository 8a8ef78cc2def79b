//! `dispatcher.endpoints`: the only array of the settings, with secrets inside.

use super::*;
use crate::alert::AlertKind;
use crate::wallet::Level;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn endpoint(name: &str, more: &str) -> String {
    format!("[[dispatcher.endpoints]]\nname = {name:?}\n{more}\n")
}

fn whole(name: &str, more: &str) -> String {
    endpoint(name, &format!("url = \"https://example.com/hook?a=b\"\nsecrets = [{SECRET:?}]\n{more}"))
}

#[test]
fn endpoints_come_from_a_file_or_as_one_value_from_the_environment() {
    let filter = "kinds = [\"level\"]\nlevels = [\"critical\"]\nplans = [\"lite\"]";
    let config = load(&format!("{}{}", whole("a", filter), whole("b", "")), &[]).unwrap();
    let [a, b] = config.dispatcher.endpoints.as_slice() else { panic!() };
    assert_eq!((a.kinds[0], a.levels[0], a.plans[0].as_str()), (AlertKind::Level, Level::Critical, "lite"));
    assert_eq!(a.secrets[0].expose(), SECRET);
    assert!(b.kinds.is_empty() && !b.allow_private);
    assert_eq!(config.dispatcher.group_of(b), "creditstream-dispatcher-b");

    let text = format!(r#"[{{name="c",url="http://10.0.0.1/",secrets=[{SECRET:?}],allow_private=true}}]"#);
    let config = load(&whole("a", ""), &[("CREDITSTREAM__DISPATCHER__ENDPOINTS", &text)]).unwrap();
    assert_eq!(config.dispatcher.endpoints.len(), 1);
    assert_eq!(config.dispatcher.endpoints[0].name, "c");
}

#[test]
fn no_secret_of_an_endpoint_is_shown() {
    let config = load(&whole("a", ""), &[]).unwrap();
    for shown in [config.effective_toml(), format!("{config:?}"), serde_json::to_string(&config).unwrap()] {
        assert!(!shown.contains(SECRET) && shown.contains("***"), "{shown}");
    }
    let bad = [
        endpoint("a", &format!("url = \"https://e.com/\"\nsecrets = {SECRET:?}")),
        endpoint("a", &format!("url = \"https://e.com/\"\nsecrets = [{:?}]", &SECRET[..20])),
        whole("a", &format!("kinds = [{SECRET:?}]")).replace("kinds", "kindz"),
    ];
    for text in bad {
        let said = format!("{:?}", load(&text, &[]).unwrap_err());
        assert!(!said.contains(&SECRET[..20]), "{said}");
    }
    let variable = [("CREDITSTREAM__DISPATCHER__ENDPOINTS", SECRET)];
    let said = format!("{:?}", load("", &variable).unwrap_err());
    assert!(!said.contains(SECRET) && said.contains("must be an array"), "{said}");
}

#[test]
fn what_is_wrong_with_an_endpoint_is_said() {
    let url = |url: &str| endpoint("a", &format!("url = {url:?}\nsecrets = [{SECRET:?}]"));
    let cases = [
        (endpoint("a b", &format!("url = \"https://e.com/\"\nsecrets = [{SECRET:?}]")), "name must be"),
        (format!("{}{}", whole("a", ""), whole("a", "")), "endpoint 2: name a again"),
        (url("http://e.com/"), "url must be https://, or allow_private = true"),
        (url("ftp://e.com/"), "url must be https://"),
        (url("https://user:password@e.com/"), "url must be https://"),
        (endpoint("a", "url = \"https://e.com/\"\nsecrets = []"), "secrets must be one or more"),
        (endpoint("a", "url = \"https://e.com/\"\nsecrets = [\"***\"]"), "the secrets themselves"),
        (endpoint("a", "url = \"https://e.com/\""), "secrets must be an array of strings"),
        (whole("a", "kinds = [\"levels\"]"), "unknown variant `levels`"),
        (whole("a", "timeout = 3"), "unknown field `timeout`"),
        ("[dispatcher]\nendpoints = [3]\n".to_owned(), "secrets must be an array of strings"),
    ];
    for (text, expected) in cases {
        let fault = only_fault(&text);
        assert!(fault.starts_with("dispatcher.endpoints = ***: endpoint "), "{fault}");
        assert!(fault.contains(expected), "{fault}");
    }
}
