//! Owns prices: what a quantity costs by the rate card in force, what plans grant, what top-ups bring.
//!
//! **Invariant:** integers only. A cost is quantity x rate, exact, rounded up once. Pure: no clock, no I/O;
//! the caller says at what time.

mod estimate;
mod pricing;
mod quantity;
#[cfg(test)]
mod tests;

pub use estimate::{CLIP_SECONDS, Purchase, SHOOT_IMAGES, Unit, estimate, rates};
pub use pricing::{AssetRates, Pack, Plan, Pricing, PricingErrors, RateCard};
pub use quantity::{AssetType, Quantity, Rate, RateError, UsdCents, VideoMillis, exact_scaled};
