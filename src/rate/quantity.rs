//! Quantities, rates and the one multiplication of the product.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// What kind of asset was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssetType {
    /// Counted in images.
    Image,
    /// Counted in seconds.
    Video,
}

impl AssetType {
    /// The name in events, tables and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            AssetType::Image => "image",
            AssetType::Video => "video",
        }
    }
}

/// Length of a video in thousandths of a second, spelt in seconds ("4.5").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VideoMillis(pub u64);

/// A price in US cents, spelt in dollars ("250").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsdCents(pub i64);

/// How much of an asset was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// That many images.
    Images(u32),
    /// A video of that length.
    Video(VideoMillis),
}

/// Credits for one image, or for one second of video, in millionths of a credit, spelt in credits ("4.5").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

/// A cost that does not fit into 64 bits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the cost of {quantity:?} at {rate} credits does not fit into 64 bits")]
pub struct RateError {
    quantity: Quantity,
    rate: Rate,
}

const MILLIONTHS: u128 = 1_000_000;
const THOUSANDTHS: u128 = 1_000;

impl Quantity {
    /// The kind of asset that this is a quantity of.
    pub const fn asset_type(self) -> AssetType {
        match self {
            Quantity::Images(_) => AssetType::Image,
            Quantity::Video(_) => AssetType::Video,
        }
    }

    /// Credits for this quantity: exact product, rounded up once.
    ///
    /// # Errors
    /// Where the result does not fit into an `i64`.
    pub fn cost(self, rate: Rate) -> Result<i64, RateError> {
        let millionths = u128::from(rate.0);
        let cost = match self {
            Quantity::Images(images) => (u128::from(images) * millionths).div_ceil(MILLIONTHS),
            Quantity::Video(VideoMillis(millis)) => {
                (u128::from(millis) * millionths).div_ceil(MILLIONTHS * THOUSANDTHS)
            }
        };
        i64::try_from(cost).map_err(|_| RateError { quantity: self, rate })
    }
}

/// Reads a JSON number (or a decimal in a file) exactly, as an integer count of 10^-`scale`.
///
/// `None` where it is no number, is not a multiple of 10^-`scale`, or has more than 28 digits: nothing is
/// ever rounded on the way in.
pub fn exact_scaled(text: &str, scale: u32) -> Option<i128> {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || digits > 28 || text.len() > 40 {
        return None;
    }
    let is_scientific = text.bytes().any(|byte| byte == b'e' || byte == b'E');
    let parsed = if is_scientific { Decimal::from_scientific(text) } else { Decimal::from_str_exact(text) };
    let value = parsed.ok()?.normalize();
    let missing_digits = scale.checked_sub(value.scale())?;
    value.mantissa().checked_mul(10_i128.checked_pow(missing_digits)?)
}

/// `units` of 10^-`scale` as a decimal without trailing zeros.
fn write_scaled(f: &mut fmt::Formatter<'_>, units: u64, scale: u32) -> fmt::Result {
    let one = 10_u64.pow(scale);
    let (whole, fraction) = (units / one, units % one);
    if fraction == 0 {
        return write!(f, "{whole}");
    }
    let digits = format!("{fraction:0width$}", width = scale as usize);
    write!(f, "{whole}.{}", digits.trim_end_matches('0'))
}

impl fmt::Display for VideoMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, 3)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, 6)
    }
}

impl fmt::Display for UsdCents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write_scaled(f, self.0.unsigned_abs(), 2)
    }
}

/// Decimals cross JSON as strings, so that no reader turns them into floats.
macro_rules! decimal_string {
    ($type:ident, $scale:literal, $integer:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if !serializer.is_human_readable() {
                    return self.0.serialize(serializer);
                }
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <$integer>::deserialize(deserializer).map($type);
                }
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                exact_scaled(&text, $scale)
                    .and_then(|units| <$integer>::try_from(units).ok())
                    .map($type)
                    .ok_or_else(|| {
                        serde::de::Error::custom(format!(
                            "{text:?} is no decimal of at most {} places without a sign",
                            $scale
                        ))
                    })
            }
        }
    };
}
decimal_string!(VideoMillis, 3, u64);
decimal_string!(Rate, 6, u64);
decimal_string!(UsdCents, 2, i64);
