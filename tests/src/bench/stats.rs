//! Samples of one measurement.

/// Values in the order in which they were measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a value.
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a value that could be measured.
    pub(super) fn extend(&mut self, value: Option<f64>) {
        self.0.extend(value);
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The middle value; of an even number of values, the mean of the two in the middle. Not a number if there is none.
    pub(super) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match (sorted.len() / 2, sorted.len() % 2) {
            (0, 0) => f64::NAN,
            (middle, 0) => f64::midpoint(sorted[middle - 1], sorted[middle]),
            (middle, _) => sorted[middle],
        }
    }

    /// The smallest value. Not a number if there is none.
    pub(super) fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    /// The smallest value that at least 95 of 100 do not exceed. Not a number if there is none.
    pub(super) fn p95(&self) -> f64 {
        self.percentile(95)
    }

    /// The same for 99 of 100.
    pub(super) fn p99(&self) -> f64 {
        self.percentile(99)
    }

    fn percentile(&self, share: usize) -> f64 {
        let sorted = self.sorted();
        let rank = (sorted.len() * share).div_ceil(100);
        rank.checked_sub(1).map_or(f64::NAN, |index| sorted[index])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = u32>) -> Samples {
        values.into_iter().map(f64::from).collect()
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole and half numbers are exact")]
    fn the_median_is_in_the_middle_of_the_sorted_values() {
        assert_eq!(samples([9, 1, 5]).median(), 5.0);
        assert_eq!(samples([9, 1, 5, 6]).median(), 5.5);
        assert!(samples([]).median().is_nan());
        assert_eq!(samples([9, 1, 5]).min(), 1.0);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
    fn one_in_twenty_may_be_above_the_95th_percentile() {
        assert_eq!(samples((1..=20).rev()).p95(), 19.0);
        assert_eq!(samples(1..=30).p95(), 29.0);
        assert_eq!(samples([7]).p95(), 7.0);
        assert_eq!(samples(1..=100).p99(), 99.0);
        assert_eq!(samples(1..=30).p99(), 30.0);
        assert!(samples([]).p95().is_nan());
    }
}
