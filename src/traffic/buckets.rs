//! Buckets of durations: exponential ones of scale 3, as OTLP defines them, and the bounds of explicit ones.
//!
//! Pure arithmetic; durations are whole nanoseconds, so that sums stay exact.

use crate::model::sample::Exponential;

/// 2^3 buckets for each power of two, so a value is known to 4.4 %.
const SCALE: u32 = Exponential::SCALE as u32;
const PER_OCTAVE: i32 = 1 << SCALE;
/// Powers of two that a range covers.
const OCTAVES: i32 = 26;
/// The zero bucket, and the exponential ones after it.
pub(super) const SLOTS: usize = (OCTAVES * PER_OCTAVE) as usize + 1;

const MANTISSA_BITS: u32 = 52;
const MANTISSA_MASK: u64 = (1 << MANTISSA_BITS) - 1;
const EXPONENT_BIAS: i32 = 1023;

/// The mantissa bits of 2^(k/8), rounded down: a mantissa above one of them lies above that bound.
/// The last one is above every mantissa.
const BOUNDS: [u64; PER_OCTAVE as usize + 1] = [
    0x0,
    0x1_72b8_3c7d_517a,
    0x3_06fe_0a31_b715,
    0x4_bfda_d536_2a27,
    0x6_a09e_667f_3bcc,
    0x8_ace5_422a_a0db,
    0xa_e89f_995a_d3ad,
    0xd_5818_dcfb_a487,
    MANTISSA_MASK + 1,
];

/// The span of an exponential histogram: 2^lowest to 2^(lowest + 26) seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    lowest_exponent: i32,
}

impl Range {
    /// 15 µs to 17 min: requests.
    pub(super) const REQUESTS: Self = Self { lowest_exponent: -16 };
    /// 16 ms to 12 days: streams and tunnels.
    pub(super) const STREAMS: Self = Self { lowest_exponent: -6 };

    /// The slot of a duration: 0 is the zero bucket, the last one takes all that is longer.
    pub(super) fn slot(self, nanos: u64) -> usize {
        let bits = (nanos as f64 / 1e9).to_bits();
        let exponent = (bits >> MANTISSA_BITS) as i32 - EXPONENT_BIAS;
        let mantissa = bits & MANTISSA_MASK;
        // eighths of the mantissa lie below the curve of the logarithm by less than one bucket: two bounds are left
        let guess = (mantissa >> (MANTISSA_BITS - SCALE)) as usize;
        // a bucket excludes its lower bound: a value that is a bound counts as not above it
        let above = guess as i32 + i32::from(mantissa > BOUNDS[guess]) + i32::from(mantissa > BOUNDS[guess + 1]);
        let slot = (exponent - self.lowest_exponent) * PER_OCTAVE + above;
        slot.clamp(0, SLOTS as i32 - 1) as usize
    }

    /// The OTLP index of the first slot after the zero bucket.
    pub(super) fn offset(self) -> i32 {
        self.lowest_exponent * PER_OCTAVE
    }

    /// At or below it a value is in the zero bucket; in seconds.
    pub(super) fn zero_threshold(self) -> f64 {
        f64::from(self.lowest_exponent).exp2()
    }

    /// The value that stands for a slot: the geometric middle, in seconds.
    fn middle(self, slot: usize) -> f64 {
        if slot == 0 {
            return self.zero_threshold() / 2.0;
        }
        let index = f64::from(self.offset()) + slot as f64 - 1.0;
        ((index + 0.5) / f64::from(PER_OCTAVE)).exp2()
    }

    /// The value below which this share of the counted values lies, in seconds; `None` without values.
    ///
    /// Off by 4.4 % at most within the range.
    pub(super) fn quantile(self, slots: &[u64; SLOTS], share: f64) -> Option<f64> {
        let count: u64 = slots.iter().sum();
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let slot = slots.iter().position(|in_slot| {
            seen += in_slot;
            seen >= rank
        })?;
        Some(self.middle(slot))
    }
}

/// The bounds of explicit buckets in nanoseconds.
pub(super) const fn nanos<const N: usize>(seconds: &[f64]) -> [u64; N] {
    assert!(seconds.len() == N);
    let mut out = [0; N];
    let mut i = 0;
    while i < N {
        out[i] = (seconds[i] * 1e9 + 0.5) as u64;
        i += 1;
    }
    out
}

/// The explicit bucket of a value: bounds belong to the bucket below them.
pub(super) fn explicit(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| value > *bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::REQUEST_SECONDS;
    use proptest::prelude::*;

    /// The formula of the OTLP data model.
    fn by_logarithm(seconds: f64) -> i32 {
        (seconds.log2() * f64::from(PER_OCTAVE)).ceil() as i32 - 1
    }

    #[test]
    fn the_table_holds_the_roots_of_two() {
        for (k, bound) in BOUNDS[..8].iter().enumerate() {
            let root = (k as f64 / 8.0).exp2().to_bits() & MANTISSA_MASK;
            assert!(root.abs_diff(*bound) <= 1, "{k}: {bound:#x} {root:#x}");
        }
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let range = Range::REQUESTS;
        let second = range.slot(1_000_000_000);
        assert_eq!(second, 128);
        assert_eq!(range.slot(1_000_000_001), second + 1);
        assert_eq!((range.slot(0), range.slot(15_258), range.slot(15_259)), (0, 0, 1));
        assert_eq!((range.slot(1 << 60), range.slot(u64::MAX)), (SLOTS - 1, SLOTS - 1));
        assert_eq!(Range::STREAMS.slot(3_600_000_000_000), 143);
    }

    #[test]
    fn explicit_bounds_are_inclusive() {
        const BOUNDS: [u64; 14] = nanos(REQUEST_SECONDS);
        assert_eq!(BOUNDS[0], 5_000_000);
        assert_eq!(explicit(&BOUNDS, 5_000_000), 0);
        assert_eq!(explicit(&BOUNDS, 5_000_001), 1);
        assert_eq!(explicit(&BOUNDS, u64::MAX), 14);
    }

    #[test]
    fn without_values_there_is_no_quantile() {
        assert_eq!(Range::REQUESTS.quantile(&[0; SLOTS], 0.5), None);
    }

    proptest! {
        #[test]
        fn a_slot_is_what_the_logarithm_says(nanos in 15_300_u64..1_000_000_000_000) {
            let seconds = nanos as f64 / 1e9;
            let exact = seconds.log2() * f64::from(PER_OCTAVE);
            // within rounding of a bound the logarithm itself is not exact
            prop_assume!((exact - exact.round()).abs() > 1e-9);
            let range = Range::REQUESTS;
            prop_assert_eq!(range.slot(nanos) as i32 - 1 + range.offset(), by_logarithm(seconds));
        }

        #[test]
        fn a_quantile_is_off_by_less_than_its_promise(
            mut values in prop::collection::vec(20_000_u64..1_000_000_000_000, 1..200),
            share in 0.01_f64..1.0,
        ) {
            let mut slots = [0; SLOTS];
            values.iter().for_each(|nanos| slots[Range::REQUESTS.slot(*nanos)] += 1);
            values.sort_unstable();
            let rank = (values.len() as f64 * share).ceil() as usize;
            let exact = values[rank.clamp(1, values.len()) - 1] as f64 / 1e9;
            let estimated = Range::REQUESTS.quantile(&slots, share).unwrap();
            prop_assert!((estimated / exact - 1.0).abs() < 0.0443, "{estimated} {exact}");
        }
    }
}
