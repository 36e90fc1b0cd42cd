//! What tokens cost, as the settings tell: an estimate, because discounts, cached input and the like are not known here.
//!
//! There is no table of prices in the binary: it would be wrong sooner than anybody noticed.

use std::collections::HashMap;

use crate::settings::Section;

/// Prices of models, by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices(HashMap<String, Price>);

/// The price of one token, in the currency of the settings.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Price {
    input: f64,
    output: f64,
}

const MILLION: f64 = 1e6;

impl Prices {
    /// Reads the map `prices`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        const EXPECTED: &str = "prices of a million tokens of input and of output such as 0.25/2";
        let about = "what a million tokens of a model cost, input/output, such as gpt-5-mini: 0.25/2, in any one currency; makes \
                     content_factory.gen_ai.estimated_cost";
        let mut prices = HashMap::new();
        for (model, written) in section.map("prices", about) {
            match parse(&written) {
                Some(price) => drop(prices.insert(model, price)),
                None => section.problem(&format!("prices.{model}"), written, EXPECTED),
            }
        }
        Self(prices)
    }

    /// What so many tokens cost by the first of these names that has a price.
    pub(super) fn cost(&self, models: [Option<&str>; 2], input: u64, output: u64) -> Option<f64> {
        let price = models.into_iter().flatten().find_map(|model| self.0.get(model))?;
        Some(price.input * input as f64 + price.output * output as f64)
    }
}

fn parse(text: &str) -> Option<Price> {
    let (input, output) = text.split_once('/')?;
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|price| (0.0..=MILLION).contains(price));
    Some(Price { input: number(input)? / MILLION, output: number(output)? / MILLION })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_asked_for_decides_and_one_without_a_price_costs_nothing_that_is_known() {
        let prices = Prices(HashMap::from([("a".to_owned(), parse("2/8").unwrap())]));
        assert_eq!(prices.cost([Some("a"), Some("b")], 1_000_000, 500_000), Some(6.0));
        assert_eq!(prices.cost([Some("b"), Some("a")], 1_000, 0), Some(0.002));
        assert_eq!(prices.cost([Some("b"), None], 1, 1), None);
    }

    #[test]
    fn what_is_no_price_is_none() {
        for text in ["", "1", "1/", "-1/2", "1/NaN", "inf/1", "1/2/3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
