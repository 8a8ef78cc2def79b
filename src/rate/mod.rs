//! Owns prices: what a quantity costs by the rate card in force, what plans grant, what top-ups bring.
//!
//! **Invariant:** integers only. A cost is quantity x rate, exact, rounded up once. Pure: no clock, no I/O;
//! the caller says at what time.

mod pricing;
mod quantity;
#[cfg(test)]
mod tests;

pub use pricing::{AssetRates, Pack, Plan, Pricing, PricingErrors, RateCard};
pub use quantity::{AssetType, Quantity, Rate, RateError, UsdCents, VideoMillis, exact_scaled};
