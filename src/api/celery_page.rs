//! Celery on the dashboard page: its queues, and what is wrong with them and their workers.

use std::fmt::{self, Write};

use crate::api::html::{Escaped, ago, row, seconds, span, table_head};
use crate::model::celery::{CeleryState, Condition, QueueState, TaskState};

/// How many names of tasks are shown.
const TASKS: usize = 12;

/// The section; nothing, where no Celery was ever seen.
pub(super) fn section(page: &mut String, celery: &CeleryState) -> fmt::Result {
    if !celery.is_found {
        return Ok(());
    }
    let alive = celery.workers.iter().filter(|worker| worker.is_alive).count();
    let active: u64 = celery.workers.iter().filter(|worker| worker.is_alive).map(|worker| worker.active).sum();
    let read = celery.queues_age.map_or("never".to_owned(), |age| ago(age.as_secs_f64()));
    write!(
        page,
        "<section aria-labelledby=\"celery\">\n<h2 id=\"celery\">Celery</h2>\n<p>Workers alive: {alive}; tasks in work: {active}; queues read {read}.{}</p>\n",
        Escaped(&hearing(celery))
    )?;
    for remark in remarks(celery) {
        writeln!(page, "<p>{}</p>", Escaped(&remark))?;
    }
    table_head(page, "Queues", &["Queue", "Messages", "Consumers", "Next has waited"])?;
    for queue in &celery.queues {
        row(page, queue.name.as_str(), &queue_cells(queue))?;
    }
    page.push_str("</tbody></table>\n");
    table_head(
        page,
        "Tasks since the start",
        &["Task", "Queue", "Succeeded", "Failed", "Lost", "Mean run", "Mean wait"],
    )?;
    for task in celery.tasks.iter().take(TASKS) {
        row(page, task.name.as_str(), &task_cells(task))?;
    }
    page.push_str("</tbody></table>\n</section>\n");
    Ok(())
}

/// What became of the hearing.
fn hearing(celery: &CeleryState) -> String {
    let gaps = if celery.gaps == 0 { String::new() } else { format!(" It was interrupted {} times.", celery.gaps) };
    match celery.hearing {
        Condition::Up(since) => format!(" Events are heard for {}.{gaps}", span(since.as_secs_f64())),
        Condition::Down(since, problem) => {
            format!(" Events are not heard for {}: {problem}.{gaps}", span(since.as_secs_f64()))
        }
        Condition::Off | Condition::Connecting => String::new(),
    }
}

/// What is wrong, in sentences.
fn remarks(celery: &CeleryState) -> Vec<String> {
    let queues = celery.queues.iter().filter_map(|queue| {
        let since = span(queue.unserved?.as_secs_f64());
        Some(format!("No worker consumes {}, which holds {} messages: for {since}.", queue.name, queue.messages))
    });
    let workers = celery.workers.iter().filter_map(|worker| {
        let since = span(worker.not_consuming?.as_secs_f64());
        Some(format!("{} lives and takes no message, though one waits: for {since}.", worker.name))
    });
    queues.chain(workers).collect()
}

fn queue_cells(queue: &QueueState) -> [String; 3] {
    let consumers = queue.consumers.map_or("unknown".to_owned(), |consumers| consumers.to_string());
    [queue.messages.to_string(), consumers, span(queue.head_age.as_secs_f64())]
}

fn task_cells(task: &TaskState) -> [String; 6] {
    let sum = |names: &[&str]| {
        let counts = task.outcomes.iter().filter(|(name, _)| names.contains(name));
        counts.map(|(_, count)| count).sum::<u64>().to_string()
    };
    [
        task.queue.as_str().to_owned(),
        sum(&["succeeded"]),
        sum(&["failed", "result_error"]),
        sum(&["lost"]),
        seconds(task.mean_seconds),
        seconds(task.mean_wait_seconds),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::celery::WorkerState;
    use crate::redact::Clean;

    fn celery() -> CeleryState {
        let queue = QueueState {
            name: Clean::literal("video-queue"),
            messages: 7,
            unacked: None,
            consumers: Some(0),
            head_age: Duration::from_secs(300),
            unserved: Some(Duration::from_secs(120)),
        };
        let worker = WorkerState {
            name: Clean::literal("<w@h>"),
            version: Clean::literal("5.7.0"),
            is_alive: true,
            age: Duration::ZERO,
            active: 2,
            processed: 9,
            sends_events: true,
            consumes: None,
            not_consuming: Some(Duration::from_secs(60)),
        };
        let task = TaskState {
            name: Clean::literal("render"),
            queue: Clean::literal("video-queue"),
            steps: [("sent", 9), ("received", 9), ("started", 9), ("retried", 0)],
            outcomes: vec![("succeeded", 4), ("result_error", 2), ("failed", 1), ("lost", 1)],
            mean_seconds: Some(0.25),
            mean_wait_seconds: None,
        };
        CeleryState {
            hearing: Condition::Down(Duration::from_secs(40), "refused"),
            is_found: true,
            gaps: 3,
            queues: vec![queue],
            workers: vec![worker],
            tasks: vec![task],
            ..CeleryState::off()
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_names_are_escaped() {
        let mut page = String::new();
        section(&mut page, &celery()).unwrap();
        for part in [
            "Workers alive: 1; tasks in work: 2; queues read never. Events are not heard for 40 s: refused. It was interrupted 3 times.",
            "<p>No worker consumes video-queue, which holds 7 messages: for 2 min.</p>",
            "<p>&lt;w@h&gt; lives and takes no message, though one waits: for 1 min.</p>",
            "<th scope=\"row\">video-queue</th><td>7</td><td>0</td><td>5 min</td>",
            "<td>4</td><td>3</td><td>1</td><td>250 ms</td><td>–</td>",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    #[test]
    fn where_there_is_no_celery_nothing_is_shown() {
        let mut page = String::new();
        section(&mut page, &CeleryState::off()).unwrap();
        assert_eq!(page, "");
    }
}
