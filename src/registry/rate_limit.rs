//! Rate limits in a response: whether and when to retry.
//!
//! Docker Hub counts pulls over hours; GitLab, Kong, Envoy and others use the same fields for
//! requests within seconds (draft-ietf-httpapi-ratelimit-headers).

use crate::net::Response;
use crate::net::retry::retry_after;
use std::time::Duration;

/// From this length on, a window is too long to wait for.
const LONG: u64 = 3600;
/// The longest wait that is accepted.
const PATIENCE: Duration = Duration::from_secs(60);

/// The limits in a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// A quota of pulls, in words.
    pub quota: Option<String>,
    /// A quota of hours is used up: a retry would only prolong it.
    pub used_up: bool,
    /// How long the server wants us to wait.
    pub wait: Option<Duration>,
}

/// Reads the limits of a response.
pub(super) fn read(response: &Response<'_>) -> Limits {
    // The server's own clock if it sends one: a board's clock may be wrong.
    let date = response.field("date").and_then(crate::time::http_date);
    let now = date.unwrap_or_else(crate::time::now);
    parse(response.status(), &|name| response.field(name), now)
}

fn parse<'t>(status: u16, field: &dyn Fn(&str) -> Option<&'t str>, now: u64) -> Limits {
    let left = field("ratelimit-remaining").or_else(|| field("x-ratelimit-remaining"));
    let left = left.and_then(leading);
    let limit = field("ratelimit-limit");
    let quota = limit.and_then(pulls);
    let asked = field("retry-after").and_then(|text| retry_after(text, now));
    let reset = (status == 429).then(|| reset(field, now)).flatten();
    let long = quota.is_some() || reset.is_some_and(|seconds| seconds >= LONG);
    Limits {
        used_up: status == 429
            && left == Some(0)
            && long
            && asked.is_none_or(|wait| wait > PATIENCE),
        wait: asked.or_else(|| reset.map(Duration::from_secs)),
        quota: quota.map(|(limit, window)| {
            let left = left.map_or(String::new(), |left| format!(", {left} left"));
            let hours = window / 3600;
            format!("the limit is {limit} pulls in {hours} h{left}; credentials raise it")
        }),
    }
}

/// The number at the start of a value.
fn leading(text: &str) -> Option<u64> {
    let digits = text.split([';', ',']).next()?;
    digits.trim().parse().ok()
}

/// Only Docker Hub's form, `100;w=21600`: the limit and its window.
fn pulls(text: &str) -> Option<(u64, u64)> {
    let (limit, window) = text.split_once(";w=")?;
    let window = window.trim().parse().ok()?;
    Some((limit.trim().parse().ok()?, window)).filter(|(_, window)| *window >= LONG)
}

/// The seconds until the limit allows more: a number of seconds, a time, or else the window.
fn reset<'t>(field: &dyn Fn(&str) -> Option<&'t str>, now: u64) -> Option<u64> {
    let stated = field("ratelimit-reset").or_else(|| field("x-ratelimit-reset"));
    let seconds = match stated.and_then(leading) {
        Some(seconds) if seconds < 1_000_000_000 => Some(seconds),
        // Ten digits are a time; more are not a time in seconds.
        Some(time) if time < 100_000_000_000 => time.checked_sub(now),
        _ => None,
    };
    let parameter = |name: &str, key: &str| {
        let parts = field(name)?.split([';', ',']);
        let values = parts.filter_map(|part| part.trim().strip_prefix(key)?.parse::<u64>().ok());
        values.min()
    };
    seconds
        .or_else(|| parameter("ratelimit", "t="))
        .or_else(|| parameter("ratelimit-limit", "w="))
        .or_else(|| parameter("ratelimit-policy", "w="))
        .filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> Limits {
        let field = |name: &str| {
            let found = fields.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| *value)
        };
        parse(429, &field, 1_700_000_000)
    }

    #[test]
    fn only_a_used_up_quota_of_hours_ends_the_tries() {
        let hub = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "0;w=21600"),
        ];
        let limits = of(&hub);
        assert!(limits.used_up);
        let words = "the limit is 100 pulls in 6 h, 0 left; credentials raise it";
        assert_eq!(limits.quota.as_deref(), Some(words));
        assert!(!of(&hub[..1]).used_up);
        assert!(!of(&[hub[0], ("ratelimit-remaining", "3;w=21600")]).used_up);
        assert!(of(&[hub[0], hub[1], ("retry-after", "9000")]).used_up);
        assert!(!of(&[hub[0], hub[1], ("retry-after", "2")]).used_up);
        let hourly = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1700007200"),
        ];
        assert!(of(&hourly).used_up);
    }

    #[test]
    fn windows_of_seconds_are_waited_for() {
        for (fields, seconds) in [
            (
                &[("retry-after", "3"), ("ratelimit-reset", "9")][..],
                Some(3),
            ),
            (&[("ratelimit-reset", "9")], Some(9)),
            (&[("ratelimit-reset", "1700000004")], Some(4)),
            (&[("x-ratelimit-reset", "1600000000")], None),
            (&[("ratelimit-reset", "1700000004000")], None),
            (&[("ratelimit-limit", "10, 10;w=1, 99;w=60")], Some(1)),
            (&[("ratelimit", "\"default\";r=0;t=5")], Some(5)),
            (&[("ratelimit-policy", "\"burst\";q=100;w=7")], Some(7)),
            (&[("ratelimit-limit", "2000")], None),
            (&[], None),
        ] {
            let fields = [&[("ratelimit-remaining", "0")][..], fields].concat();
            let limits = of(&fields);
            assert_eq!(limits.wait, seconds.map(Duration::from_secs), "{fields:?}");
            assert!(!limits.used_up && limits.quota.is_none(), "{fields:?}");
        }
    }
}
