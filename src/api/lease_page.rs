//! Who speaks for the cluster, on the dashboard page.

use std::fmt::{self, Write};

use crate::api::html::{Escaped, span};
use crate::model::lease::Standing;

/// The section; nothing of a sidecar that is alone.
pub(super) fn section(page: &mut String, standing: Option<&Standing>) -> fmt::Result {
    let Some(standing) = standing else { return Ok(()) };
    let holder = standing.holder.as_ref().map_or("nobody", |holder| holder.as_str());
    let said = match (standing.held_for, standing.problem) {
        (Some(held), _) => {
            format!("This replica, {holder}, exports queues, tasks and tables for {}.", span(held.as_secs_f64()))
        }
        (None, Some(problem)) => {
            format!("Redis cannot be asked who exports queues, tasks and tables: {problem}. This replica does not.")
        }
        (None, None) => {
            format!("Queues, tasks and tables are exported by {holder}; this replica shows what it knows itself.")
        }
    };
    writeln!(
        page,
        "<section aria-labelledby=\"lease\">\n<h2 id=\"lease\">Cluster</h2>\n<p>{}</p>\n</section>",
        Escaped(&said)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::redact::Clean;

    fn page(held_for: Option<Duration>, problem: Option<&'static str>) -> String {
        let holder = Some(Clean::literal("web-1-<b>"));
        let mut page = String::new();
        section(&mut page, Some(&Standing { is_holder: held_for.is_some(), holder, held_for, problem })).unwrap();
        page
    }

    #[test]
    fn the_page_says_who_exports_and_why_nobody_may() {
        assert!(page(Some(Duration::from_secs(9)), None).contains("This replica, web-1-&lt;b&gt;, exports"));
        assert!(page(None, None).contains("exported by web-1-&lt;b&gt;; this replica"));
        assert!(page(None, Some("not_allowed")).contains("tables: not_allowed. This replica does not."));
    }

    #[test]
    fn a_sidecar_that_is_alone_has_no_section() {
        let mut page = String::new();
        section(&mut page, None).unwrap();
        assert_eq!(page, "");
    }
}
