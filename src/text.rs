//! Owns numbers and text as people read them. Programs are given both raw.

use std::fmt::Display;

/// A number with thousands separators: 1,388.
pub fn thousands(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if number < 0 { format!("-{grouped}") } else { grouped }
}

/// `1 record`, `1,388 records`.
pub fn counted(number: impl Into<i128>, what: &str) -> String {
    let number = number.into();
    format!("{} {what}{}", thousands(number), if number.abs() == 1 { "" } else { "s" })
}

/// A decimal with thousands separators before its point: 1,851.5.
pub fn thousands_decimal(decimal: impl Display) -> String {
    let text = decimal.to_string();
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let whole = whole.parse::<i128>().map_or_else(|_| whole.to_owned(), thousands);
    fraction.map_or_else(|| whole.clone(), |fraction| format!("{whole}.{fraction}"))
}

/// Text that came from outside, as a terminal may be shown it: no control characters.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_388, "-1,388"),
            (11_111, "11,111"),
            (1_234_567, "1,234,567"),
            (-100, "-100"),
        ] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(thousands(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn one_of_a_thing_is_not_several() {
        let said = [0, 1, -1, 2, 1_000].map(|number| counted(number, "record"));
        assert_eq!(said, ["0 records", "1 record", "-1 record", "2 records", "1,000 records"]);
    }

    #[test]
    fn a_decimal_keeps_its_fraction() {
        for (decimal, text) in [("1851.5", "1,851.5"), ("3", "3"), ("0.001", "0.001"), ("36000", "36,000")] {
            assert_eq!(thousands_decimal(decimal), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        assert_eq!(printable("red \u{1b}[31m\nü"), "red \u{fffd}[31m\u{fffd}ü");
    }
}
