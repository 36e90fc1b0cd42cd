//! The application's database on the dashboard page: its numbers in a line, and what of them deserves a look.

use std::fmt::{self, Write};

use tokio::time::Instant;

use crate::api::html::{Escaped, ago, span};
use crate::model::database::DatabaseState;
use crate::model::database::verdict::verdicts;

/// A line of numbers, and what of them deserves a look; nothing, before there is any.
pub(super) fn section(page: &mut String, state: &DatabaseState, now: Instant) -> fmt::Result {
    let (Some(server), Some(activity)) = (state.server.last(), state.activity.last()) else { return Ok(()) };
    let age = state.activity.age(now).map_or(0.0, |age| age.as_secs_f64());
    write!(
        page,
        "<section aria-labelledby=\"database\">\n<h2 id=\"database\">Database</h2>\n<p>PostgreSQL {} · {} of {} connections · \
         oldest transaction {} · {} waiting for locks · visibility {} · read {}{}.</p>\n",
        Escaped(server.version.as_str()),
        activity.connections(),
        server.connection_limit,
        span(activity.longest_transaction_seconds()),
        activity.waiting.len(),
        server.visibility.word(),
        ago(age),
        state.activity.trouble().map_or(String::new(), |trouble| format!(", not since: {}", trouble.word()))
    )?;
    for verdict in verdicts(state, now) {
        writeln!(page, "<p><span aria-hidden=\"true\">▲</span> {}</p>", Escaped(&verdict.message))?;
    }
    page.push_str("</section>\n");
    Ok(())
}
