//! The environment of a pull: names, addresses, proxies, next pages, and where secrets must not go
//! (full and read-only disks are in `output`, clocks in `tls`).

use crate::registry::image::Image;
use crate::registry::proxy::{Manner, Proxy};
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run, SECRETS, can_mount};
use std::net::TcpListener;
use std::time::Duration;

const BASIC: &str = "Basic bWU6aHVudGVyMg==";

fn pushed() -> (Registry, Image) {
    let (registry, image) = (Registry::start(), Image::small(1));
    image.push(&registry, "r", "latest");
    (registry, image)
}

// ---- tags -------------------------------------------------------------------------------------

/// A registry whose first page of tags links to `link`.
fn linked(link: impl Fn(&Registry) -> String) -> Registry {
    let registry = Registry::start();
    let link = link(&registry);
    registry.route(move |seen| {
        (seen.target == "/v2/r/tags/list?n=1000").then(|| {
            Reply::new(200, r#"{"name":"r","tags":["a"]}"#)
                .with(format!("Link: <{link}>; rel=\"next\""))
        })
    });
    registry
}

#[test]
fn a_next_page_that_is_this_page_ends_the_list() {
    for link in ["/v2/r/tags/list?n=1000", "?n=1000", ""] {
        let (registry, dir) = (linked(|_| link.to_owned()), Dir::new());
        let outcome = Run::pull(&dir, &registry.name("r")).arg("--tags").status(0);
        assert_eq!(outcome.stdout, "a\n", "{link:?}");
        assert!(registry.seen().len() <= 2);
    }
}

#[test]
fn a_next_page_on_another_host_is_refused() {
    let (other, dir) = (Registry::start(), Dir::new());
    let address = other.address;
    for link in [
        format!("http://{address}/v2/r/tags/list"),
        "http://169.254.169.254/".into(),
        format!("//{address}/v2/r/tags/list"),
        "file:///etc/passwd".into(),
    ] {
        let registry = linked(|_| link.clone());
        let outcome = Run::pull(&dir, &registry.name("r"))
            .args(&["-q", "--tags", "--user", "me", "--password", "hunter2"])
            .limit(5)
            .status(1);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    assert!(other.seen().is_empty());
}

#[test]
fn plain_http_to_the_same_host_means_https() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let address = registry.address;
    registry.route(move |seen| match seen.target.as_str() {
        "/v2/r/tags/list?n=1000" => Some(Reply::new(200, r#"{"tags":["a"]}"#).with(format!(
            "Link: <http://{address}/v2/r/tags/list?last=a>; rel=\"next\""
        ))),
        "/v2/r/tags/list?last=a" => Some(Reply::new(200, r#"{"tags":["b"]}"#)),
        _ => None,
    });
    let ca = dir.write("ca.pem", &authority.pem);
    let run = Run::new(&dir, &["--cacert", &ca, "--tags", &registry.name("r")]);
    assert_eq!(run.status(0).stdout, "a\nb\n");
}

/// A registry whose list of tags never ends.
fn endless() -> Registry {
    let registry = Registry::start();
    // Each page brings a tag and a link to the next.
    registry.route(|seen| {
        let number = seen
            .target
            .rsplit_once("last=")
            .map_or(0, |(_, n)| n.parse::<u32>().unwrap() + 1);
        Some(
            Reply::new(200, format!(r#"{{"tags":["t{number}"]}}"#)).with(format!(
                "Link: </v2/r/tags/list?last={number}>; rel=\"next\""
            )),
        )
    });
    registry
}

#[test]
fn pages_without_end_are_bounded() {
    let (registry, dir) = (endless(), Dir::new());
    let outcome = Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .limit(100)
        .outcome();
    assert!(outcome.status.code().is_some());
    outcome.is_small();
    let pages = registry.seen().len();
    assert!(pages <= 20_000, "{pages} pages were asked for");
}

#[test]
fn a_list_that_was_cut_off_says_so() {
    let (registry, dir) = (endless(), Dir::new());
    let outcome = Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .limit(100)
        .outcome();
    assert!(
        outcome.status.code() != Some(0) || !outcome.stderr.is_empty(),
        "a list that was cut off passes for a whole one"
    );
}

#[test]
fn a_real_registrys_pages() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let expected: String = (0..2500)
        .map(|number| {
            registry.put_tag("r", &format!("t{number:05}"));
            format!("t{number:05}\n")
        })
        .collect();
    let outcome = Run::pull(&dir, &registry.name("r")).arg("--tags").status(0);
    assert!(outcome.stdout == expected, "other tags, or another order");
    assert_eq!(registry.seen().len(), 3);
}

/// A registry that answers requests for tags with these pages: for which target, with which tags,
/// and with which Link fields.
fn paged(pages: &[(&str, &str, &[&str])]) -> Registry {
    let registry = Registry::start();
    let pages: Vec<(String, Reply)> = pages
        .iter()
        .map(|(target, tags, links)| {
            let reply = Reply::new(200, format!(r#"{{"name":"r","tags":{tags}}}"#));
            let with = |reply: Reply, link: &&str| reply.with(format!("Link: {link}"));
            ((*target).to_owned(), links.iter().fold(reply, with))
        })
        .collect();
    registry.route(move |seen| {
        let page = pages.iter().find(|(target, _)| *target == seen.target);
        page.map(|(_, reply)| reply.clone())
    });
    registry
}

const FIRST: &str = "/v2/r/tags/list?n=1000";
const SECOND: &str = "/v2/r/tags/list?next_page=gAAA%3D%3D&n=50";

/// Lists all tags, one per line and as JSON.
#[track_caller]
fn lists(registry: &Registry, expected: &[&str]) {
    let dir = Dir::new();
    let run = || Run::pull(&dir, &registry.name("r")).arg("--tags");
    let lines = expected.iter().map(|tag| format!("{tag}\n"));
    assert_eq!(run().status(0).stdout, lines.collect::<String>());
    let json = run().arg("--json").status(0).stdout;
    let quoted: Vec<String> = expected.iter().map(|tag| format!("{tag:?}")).collect();
    let list = format!("\"tags\":[{}]}}\n", quoted.join(",\n"));
    assert!(json.ends_with(&list), "{json}");
}

#[test]
fn pages_without_tags_are_not_the_end() {
    let registry = paged(&[
        (FIRST, "[]", &["</v2/r/tags/list?last=a>; rel=\"next\""]),
        (
            "/v2/r/tags/list?last=a",
            r#"["v1","v2"]"#,
            &["<?last=b>; rel=\"next\""],
        ),
        (
            "/v2/r/tags/list?last=b",
            "null",
            &["<?last=c>; rel=\"next\""],
        ),
        (
            "/v2/r/tags/list?last=c",
            r#"["v2","v3"]"#,
            &["<?last=d>; rel=\"next\""],
        ),
        (
            "/v2/r/tags/list?last=d",
            r#"["v3"]"#,
            &["<?last=e>; rel=\"next\""],
        ),
        ("/v2/r/tags/list?last=e", r#"["v4"]"#, &[]),
    ]);
    lists(&registry, &["v1", "v2", "v3", "v4"]);
}

#[test]
fn next_pages_are_found_in_every_form() {
    for links in [
        &["/v2/r/tags/list?next_page=gAAA%3D%3D&n=50; rel=\"next\""][..],
        &["/v2/r/tags/list?next_page=gAAA%3D%3D&n=50"],
        &["</v2/r/tags/list?next_page=gAAA%3D%3D&n=50>"],
        &["</v2/r/tags/list?next_page=gAAA%3D%3D&n=50>; rel=\"next last\""],
        &["</v2/r/tags/list?next_page=gAAA%3D%3D&n=50>; rel='next'"],
        &["</v2/r/tags/list>; rel=first, <?next_page=gAAA%3D%3D&n=50>; title=\"a, b\"; REL = Next"],
        &[
            "</v2/r/tags/list>; rel=\"first\"",
            "<list?next_page=gAAA%3D%3D&n=50>;rel=next",
        ],
    ] {
        let registry = paged(&[(FIRST, r#"["v1"]"#, links), (SECOND, r#"["v2"]"#, &[])]);
        lists(&registry, &["v1", "v2"]);
        assert_eq!(registry.seen().len(), 4, "{links:?}");
    }
}

#[test]
fn a_later_page_that_fails_once_is_asked_for_again() {
    for action in [Action::Reply(Reply::new(503, "")), Action::Reset(5)] {
        let registry = paged(&[
            (FIRST, r#"["v1","v2"]"#, &["<?last=v2>; rel=next"]),
            ("/v2/r/tags/list?last=v2", r#"["v3"]"#, &[]),
        ]);
        registry.fault("last=v2", action);
        lists(&registry, &["v1", "v2", "v3"]);
    }
}

#[test]
fn a_next_page_at_https_of_a_plain_registry_is_its_own() {
    let registry = Registry::start();
    let address = registry.address;
    registry.route(move |seen| {
        Some(match seen.target.as_str() {
            FIRST => Reply::new(200, r#"{"tags":["a"]}"#)
                .with(format!("Link: <https://{address}{SECOND}>; rel=\"next\"")),
            _ => Reply::new(200, r#"{"tags":["b"]}"#),
        })
    });
    lists(&registry, &["a", "b"]);
}

#[test]
fn a_cursor_that_comes_again_is_the_end() {
    let registry = paged(&[
        (FIRST, r#"["a"]"#, &["<?last=a>; rel=next"]),
        (
            "/v2/r/tags/list?last=a",
            r#"["b"]"#,
            &["<?last=b>; rel=next"],
        ),
        (
            "/v2/r/tags/list?last=b",
            r#"["c"]"#,
            &["<?last=a>; rel=next"],
        ),
    ]);
    lists(&registry, &["a", "b", "c"]);
    assert_eq!(registry.seen().len(), 6);
}

#[test]
fn the_same_tags_behind_ever_new_cursors_end() {
    for tags in [r#"["a","b"]"#, "[]", "null"] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let count = std::sync::atomic::AtomicU32::new(0);
        registry.route(move |_| {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let reply = Reply::new(200, format!(r#"{{"tags":{tags}}}"#));
            Some(reply.with(format!("Link: <?cursor={number}>; rel=\"next\"")))
        });
        let run = Run::pull(&dir, &registry.name("r")).arg("--tags");
        let outcome = run.status(1);
        assert!(
            outcome.stderr.contains("without a new tag"),
            "{}",
            outcome.stderr
        );
        assert!(registry.seen().len() < 1000);
    }
}

#[test]
fn a_registry_that_takes_no_number_is_asked_without() {
    for status in [400, 413, 416, 422] {
        let registry = Registry::start();
        registry.route(move |seen| {
            Some(match seen.target.as_str() {
                "/v2/r/tags/list" => Reply::new(200, r#"{"tags":["a"]}"#),
                _ => Reply::new(
                    status,
                    r#"{"errors":[{"code":"PAGINATION_NUMBER_INVALID"}]}"#,
                ),
            })
        });
        lists(&registry, &["a"]);
        assert_eq!(registry.seen().len(), 4);
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(|_| Some(Reply::new(400, "no")));
    Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .fails(5, "400");
    assert_eq!(registry.seen().len(), 2);
}

#[test]
fn a_next_page_is_where_the_last_answer_came_from() {
    let (front, back) = (Registry::start(), Registry::start());
    for tag in 0..1500 {
        back.put_tag("real/r", &format!("t{tag:04}"));
    }
    let target = back.address.port();
    front.route(move |seen| {
        let rest = seen.target.strip_prefix("/v2/r/")?;
        let location = format!("http://localhost:{target}/v2/real/r/{rest}");
        Some(Reply::redirect(307, &location))
    });
    back.route(|seen| {
        let secret = seen.header("authorization").is_some();
        secret.then(|| Reply::new(400, "this is nobody's business here"))
    });
    let dir = Dir::new();
    let run = Run::pull(&dir, &front.name("r")).arg("--tags");
    let outcome = run
        .args(&["--user", "me", "--password", "hunter2"])
        .status(0);
    assert_eq!(outcome.stdout.lines().count(), 1500);
    assert_eq!((front.seen().len(), back.seen().len()), (1, 2));
}

#[test]
fn a_page_of_any_size_is_read_as_it_comes() {
    let tags: Vec<String> = (0..400_000).map(|n| format!("\"tag-{n:036}\"")).collect();
    let page = format!(r#"{{"name":"r","tags":[{}]}}"#, tags.join(","));
    drop(tags);
    let small = crate::registry::image::gzip(page.as_bytes());
    for reply in [
        Reply::new(200, page),
        Reply::new(200, small).with("Content-Encoding: gzip"),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |_| Some(reply.clone()));
        // The first one breaks off, and its tags are not listed again.
        registry.fault("/tags/", Action::Reset(1_000_000));
        let run = Run::pull(&dir, &registry.name("r")).arg("--tags");
        let outcome = run.status(0);
        outcome.is_small();
        assert_eq!(outcome.stdout.lines().count(), 400_000);
        assert!(outcome.stdout.lines().is_sorted());
        assert_eq!(registry.seen().len(), 2);
    }
}

#[test]
fn a_list_that_is_not_whole_is_a_failure() {
    for (body, fields, words) in [
        (r#"{"tags":["a","b""#, "X: y", "ends early"),
        (r#"{"tags":["a","b"]"#, "X: y", "ends early"),
        ("\u{3}", "Content-Encoding: br", "Content-Encoding br"),
        (
            r#"{"tags":["a"]}"#,
            "Link: <http://[bad>; rel=next",
            "next page",
        ),
    ] {
        for json in [&[][..], &["--json"]] {
            let (registry, dir) = (Registry::start(), Dir::new());
            registry.route(move |_| Some(Reply::new(200, body).with(fields)));
            let run = Run::pull(&dir, &registry.name("r"))
                .arg("--tags")
                .args(json);
            let outcome = run.status(1);
            assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
            assert!(!outcome.stdout.ends_with("]}\n"), "{}", outcome.stdout);
        }
    }
}

#[test]
fn an_error_in_place_of_tags_is_shown_in_its_own_words() {
    for (body, status, words) in [
        (
            r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#,
            3,
            "DENIED: not yours",
        ),
        (
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such"}]}"#,
            4,
            "NAME_UNKNOWN: no such",
        ),
        ("this registry has moved", 1, "this registry has moved"),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |_| Some(Reply::new(200, body)));
        let run = Run::pull(&dir, &registry.name("r")).arg("--tags");
        run.fails(status, words);
        assert_eq!(registry.seen().len(), 1);
    }
}

#[test]
fn a_list_whose_page_changes_while_it_is_read_is_a_failure() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let count = std::sync::atomic::AtomicU32::new(0);
    registry.route(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let tags: Vec<String> = (0..9000).map(|n| format!("\"t{number}-{n}\"")).collect();
        Some(Reply::new(
            200,
            format!(r#"{{"tags":[{}]}}"#, tags.join(",")),
        ))
    });
    registry.fault("/tags/", Action::Reset(60_000));
    let run = Run::pull(&dir, &registry.name("r")).arg("--tags");
    let outcome = run.status(1);
    assert!(outcome.stderr.contains("changed"), "{}", outcome.stderr);
}

// ---- names and addresses ------------------------------------------------------------------------

#[test]
fn a_dead_address_beside_a_living_one_costs_a_moment() {
    if !can_mount() {
        return;
    }
    let (registry, image) = pushed();
    let port = registry.address.port();
    for (name, dead) in [
        ("refused", "::1"),
        ("unreachable", "2001:db8::1"),
        // TEST-NET-1: packets to it vanish, or a router says so.
        ("vanishing", "192.0.2.1"),
    ] {
        let dir = Dir::new();
        let hosts = dir.write(
            "hosts",
            format!("{dead} dual.example\n127.0.0.1 dual.example\n"),
        );
        let run = Run::pull(&dir, &format!("dual.example:{port}/r"))
            .with_files(&[("/etc/hosts", &hosts)])
            .args(&["-o", "x.tar"]);
        let archive = run.archive();
        archive.holds(&image, Some(&format!("dual.example:{port}/r:latest")));
        assert!(
            archive.outcome.time < Duration::from_secs(6),
            "{name}: {:?}",
            archive.outcome.time
        );
    }
}

#[test]
fn localhost_needs_no_files() {
    if !can_mount() {
        return;
    }
    let (registry, image) = pushed();
    for host in ["localhost", "registry.localhost"] {
        let dir = Dir::new();
        let name = format!("{host}:{}/r", registry.address.port());
        Run::pull(&dir, &name)
            .with_files(&[
                ("/etc/hosts", "/dev/null"),
                ("/etc/resolv.conf", "/dev/null"),
            ])
            .archive()
            .holds(&image, Some(&format!("{name}:latest")));
    }
}

#[test]
fn a_name_that_nobody_knows_is_one_line() {
    if !can_mount() {
        return;
    }
    let dir = Dir::new();
    let nobody = dir.write(
        "resolv.conf",
        "nameserver 127.0.0.254\noptions timeout:1 attempts:1\n",
    );
    for files in [
        vec![
            ("/etc/resolv.conf", "/dev/null"),
            ("/etc/hosts", "/dev/null"),
        ],
        vec![("/etc/resolv.conf", nobody.as_str())],
    ] {
        let outcome = Run::new(
            &dir,
            &["--insecure", "--retries", "0", "registry.example/r"],
        )
        .with_files(&files)
        .limit(40)
        .fails(5, "registry.example");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    // A missing file is named as the reason.
    let etc = Dir::new();
    etc.write("passwd", "");
    let outcome = Run::new(
        &dir,
        &["--insecure", "--retries", "0", "registry.example/r"],
    )
    .with_files(&[("/etc", &etc.path().display().to_string())])
    .limit(40)
    .fails(5, "/etc/resolv.conf");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}

#[test]
fn an_address_of_ip_version_6_is_a_host() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: there is no ::1 here");
        return;
    };
    let (registry, dir) = (Registry::start_on(listener, None), Dir::new());
    let image = Image::small(6);
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    let host = format!("[::1]:{}", registry.address.port());
    assert_eq!(registry.seen()[0].header("host"), Some(host.as_str()));
}

// ---- proxies --------------------------------------------------------------------------------------

#[test]
fn plain_http_goes_to_the_proxy_by_its_name() {
    let (registry, image) = pushed();
    let proxy = Proxy::start(registry.address, Manner::Open);
    let url = format!("http://{}", proxy.address);
    for (variable, url) in [
        ("http_proxy", url.as_str()),
        ("HTTP_PROXY", &url),
        ("all_proxy", &url),
        ("ALL_PROXY", &proxy.address.to_string()),
    ] {
        let dir = Dir::new();
        let before = proxy.heads().len();
        Run::pull(&dir, "nowhere.invalid/r")
            .env(variable, url)
            .archive()
            .holds(&image, Some("nowhere.invalid/r:latest"));
        let heads = proxy.heads();
        assert!(
            heads[before]
                .starts_with("GET http://nowhere.invalid/v2/r/manifests/latest HTTP/1.1\r\n"),
            "{variable}: {:?}",
            heads[before]
        );
    }
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| seen.header("host") == Some("nowhere.invalid"))
    );
}

#[test]
fn https_goes_through_a_tunnel() {
    let authority = Authority::new();
    let leaf = Leaf {
        names: vec!["nowhere.invalid".into()],
        ..Leaf::default()
    };
    let registry = Registry::start_tls(authority.server(&leaf));
    let image = Image::small(85);
    image.push(&registry, "r", "latest");
    // user us@er, password hunter2
    let login = "Basic dXNAZXI6aHVudGVyMg==";
    let proxy = Proxy::start(registry.address, Manner::Login(login));
    let dir = Dir::new();
    let ca = dir.write("ca.pem", &authority.pem);
    let base = ["--cacert", &ca, "--retries", "1", "nowhere.invalid/r"];
    let archive = Run::new(&dir, &base)
        .arg("--verbose")
        .env(
            "https_proxy",
            &format!("http://us%40er:hunter2@{}/", proxy.address),
        )
        .archive();
    archive.holds(&image, Some("nowhere.invalid/r:latest"));
    assert!(!archive.outcome.stderr.contains("dXNAZXI6"));
    let heads = proxy.heads();
    assert!(
        heads[0].starts_with("CONNECT nowhere.invalid:443 HTTP/1.1\r\n"),
        "{:?}",
        heads[0]
    );
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| seen.header("proxy-authorization").is_none()),
        "the proxy's password is the proxy's"
    );
    let wrong = format!("http://us%40er:wrong@{}/", proxy.address);
    let outcome = Run::new(&dir, &base)
        .args(&["-o", "y.tar"])
        .env("HTTPS_PROXY", &wrong)
        .outcome();
    assert!(
        matches!(outcome.status.code(), Some(3 | 5)),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("proxy") && outcome.stderr.contains("407"),
        "{}",
        outcome.stderr
    );
    assert_eq!(
        outcome.keeps_secrets().stderr.lines().count(),
        1,
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_proxy_wants_a_password_for_plain_http() {
    let (registry, image) = pushed();
    let proxy = Proxy::start(registry.address, Manner::Login(BASIC));
    let dir = Dir::new();
    Run::pull(&dir, "nowhere.invalid/r")
        .env(
            "http_proxy",
            &format!("http://me:hunter2@{}", proxy.address),
        )
        .archive()
        .holds(&image, Some("nowhere.invalid/r:latest"));
    let outcome = Run::pull(&dir, "nowhere.invalid/r")
        .args(&["-o", "y.tar"])
        .env("http_proxy", &format!("http://{}", proxy.address))
        .outcome();
    assert!(
        matches!(outcome.status.code(), Some(3 | 5)),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("proxy") && outcome.stderr.contains("407"),
        "{}",
        outcome.stderr
    );
    // The registry's password is not sent to the proxy.
    let before = proxy.heads().len();
    Run::pull(&dir, "nowhere.invalid/r")
        .args(&["-o", "z.tar", "--user", "me", "--password", "hunter2"])
        .env("http_proxy", &format!("http://{}", proxy.address))
        .outcome();
    assert!(
        proxy.heads()[before..]
            .iter()
            .all(|head| !head.contains("hunter2") && !head.contains(BASIC))
    );
}

#[test]
fn a_tunnel_that_is_refused() {
    let dir = Dir::new();
    for status in [403, 502] {
        let proxy = Proxy::start("127.0.0.1:1".parse().unwrap(), Manner::Refuse(status));
        let outcome = Run::new(&dir, &["--retries", "0", "nowhere.invalid/r"])
            .env("https_proxy", &format!("http://{}", proxy.address))
            .outcome();
        assert!(
            matches!(outcome.status.code(), Some(3 | 5)),
            "{}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains("proxy") && outcome.stderr.contains(&status.to_string()),
            "{}",
            outcome.stderr
        );
    }
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    Run::new(&dir, &["--retries", "0", "nowhere.invalid/r"])
        .env("https_proxy", &format!("http://{free}"))
        .fails(5, "");
}

#[test]
fn hosts_that_need_no_proxy() {
    let (registry, _) = pushed();
    let proxy = Proxy::start(registry.address, Manner::Open);
    let url = format!("http://{}", proxy.address);
    for (no_proxy, host, direct) in [
        ("nowhere.invalid", "nowhere.invalid", true),
        ("invalid", "nowhere.invalid", true),
        (".invalid", "nowhere.invalid", true),
        ("a.b, nowhere.invalid ,", "nowhere.invalid", true),
        ("*", "nowhere.invalid", true),
        ("nowhere.invalid:80", "nowhere.invalid", true),
        ("NOWHERE.invalid", "nowhere.invalid", true),
        (".nowhere.invalid", "nowhere.invalid", false),
        ("here.invalid", "nowhere.invalid", false),
        ("nowhere.invalid:81", "nowhere.invalid", false),
        ("", "nowhere.invalid", false),
        ("10.9.0.0/16", "10.9.8.7", true),
        ("10.9.8.7", "10.9.8.7", true),
        ("10.10.0.0/16,10.9.8", "10.9.8.7", false),
    ] {
        let dir = Dir::new();
        let before = proxy.heads().len();
        let name = format!("{host}/r");
        let status = Run::new(
            &dir,
            &["--insecure", "--retries", "0", "--timeout", "1", &name],
        )
        .env("http_proxy", &url)
        .env("no_proxy", no_proxy)
        .limit(30)
        .outcome()
        .status;
        assert_eq!(proxy.heads().len() == before, direct, "no_proxy={no_proxy}");
        assert_eq!(status.success(), !direct, "no_proxy={no_proxy}");
    }
    // Hosts on this machine never go through a proxy.
    let before = proxy.heads().len();
    Run::pull(&Dir::new(), &registry.name("r"))
        .env("http_proxy", &url)
        .archive();
    assert_eq!(proxy.heads().len(), before);
}

#[test]
fn a_variable_that_came_over_the_network_is_not_believed() {
    let (registry, _) = pushed();
    let proxy = Proxy::start(registry.address, Manner::Open);
    let dir = Dir::new();
    let url = format!("http://{}", proxy.address);
    Run::pull(&dir, "nowhere.invalid/r")
        .env("HTTP_PROXY", &url)
        .env("REQUEST_METHOD", "GET")
        .limit(30)
        .fails(5, "nowhere.invalid");
    assert!(proxy.heads().is_empty());
}

// ---- secrets --------------------------------------------------------------------------------------

#[test]
fn no_secret_is_printed_or_kept() {
    let (registry, store, image) = (Registry::start(), Registry::start(), Image::small(88));
    image.push(&registry, "r", "latest");
    image.push(&store, "r", "latest");
    let (address, target) = (registry.address, store.address);
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            let granted = seen.header("authorization") == Some(BASIC);
            return Some(match granted {
                true => Reply::new(200, r#"{"access_token":"t0ken","refresh_token":"t0ken2"}"#),
                false => Reply::unauthorized("Basic realm=x"),
            });
        }
        if seen.header("authorization") != Some("Bearer t0ken") {
            return Some(Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",service="s",scope="repository:r:pull""#
            )));
        }
        seen.target.contains("/blobs/").then(|| {
            let place = format!("http://{target}{}", seen.target);
            Reply::redirect(307, &format!("{place}?X-Amz-Signature=sesame&sig=sesame"))
        })
    });
    // A store that repeats what it was asked, with the signature in it.
    let refusal = format!(
        "<Error><Code>AccessDenied</Code><Message>no {}?X-Amz-Signature=...</Message></Error>",
        image.layers[0].digest
    );
    store.faults(
        Fault::new(
            &image.layers[0].digest,
            Action::Reply(Reply::new(403, refusal)),
        )
        .times(9),
    );
    let dir = Dir::new();
    let login = ["--verbose", "--user", "me", "--password-stdin"];
    // `fails` looks for the secrets in what was printed.
    Run::pull(&dir, &registry.name("r"))
        .args(&login)
        .stdin("hunter2\n")
        .fails(5, "AccessDenied");
    for name in dir.names() {
        holds_no_secret(&std::fs::read(dir.join(&name)).unwrap());
    }
    let dir = Dir::new();
    let other = Image::small(89);
    other.push(&registry, "r", "other");
    other.push(&store, "r", "other");
    let archive = Run::pull(&dir, &registry.name("r:other"))
        .args(&login)
        .stdin("hunter2\n")
        .archive();
    holds_no_secret(&archive.bytes);
    for seen in store.seen() {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(seen.header("cookie"), None);
        assert_eq!(seen.header("referer"), None);
    }
    // The password goes only to the token endpoint, the token only to the registry.
    for seen in registry.seen() {
        let password = seen.header("authorization") == Some(BASIC);
        assert!(
            !password || seen.target.starts_with("/token"),
            "{}",
            seen.target
        );
    }
}

#[track_caller]
fn holds_no_secret(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let found = SECRETS.iter().find(|secret| text.contains(**secret));
    assert!(found.is_none(), "{found:?} is in a file");
}
