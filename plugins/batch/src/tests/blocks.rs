use super::fakes::{Node, kind};
use tabane_api::Service;

#[test]
fn a_block_that_makes_no_sense_says_why() {
    // Without its closing brace: each line adds to it.
    let poll = r#"{"poll": {"id": "/id", "status": "/jobs/{id}", "state": "/s", "done": ["done"]"#;
    let call = r#"{"callback": {"submit": {"headers": {"X": "{callback}"}}"#;
    let bare = r#"{"callback": {"submit": {}"#;
    for (block, more, wants) in [
        (
            r#"{"probe": "health""#,
            "}",
            "probe.path: must begin with `/`, got `health`",
        ),
        (r#"{"pol": {}"#, "}", "unknown field `pol`"),
        (r#"{"sync": {"path": "/"}"#, "}", "unknown field `path`"),
        (
            poll,
            r#"}, "sync": {}}"#,
            "one of `sync`, `poll` and `callback`",
        ),
        (r#"{"poll": {}"#, "}", "missing field `id`"),
        (
            r#"{"headers": {"Content-Length": "7"}"#,
            "}",
            "headers.content-length: this header is the gateway's own",
        ),
        (
            r#"{"headers": {"a b": "7"}"#,
            "}",
            "`a b` is not a header's name",
        ),
        (
            r#"{"headers": {"Authorization": "a\nb"}"#,
            "}",
            "`authorization` is one line of visible characters",
        ),
        (
            poll,
            r#", "submit": {"headers": {"Upgrade": "x"}}}}"#,
            "poll.submit.headers.upgrade: this header is the gateway's own",
        ),
        (
            poll,
            r#", "submit": {"method": "GET"}}}"#,
            "poll.submit.method: GET hands nothing over",
        ),
        (
            poll,
            r#", "submit": {"method": "HEAD"}}}"#,
            "unknown variant `HEAD`",
        ),
        (
            poll,
            r#", "submit": {"path": "/run/{id}"}}}"#,
            "poll.submit: what the work is called is not known before",
        ),
        (
            poll,
            r#", "submit": {"path": "/run?{callback}"}}}"#,
            "poll.submit: nobody waits to be called",
        ),
        (
            poll,
            r#", "submit": {"set": {"key": "{job}"}}}}"#,
            "a JSON pointer begins with `/`, got `key`",
        ),
        (
            poll,
            r#", "submit": {"timeout": "0s"}}}"#,
            "poll.submit.timeout: must be at least 10ms",
        ),
        (
            poll,
            r#", "result": "jobs"}}"#,
            "a path begins with `/`, `{path}` or `{location}`, got `jobs`",
        ),
        (poll, r#", "result": "{id}"}}"#, "a path begins with `/`"),
        (poll, r#", "result": ""}}"#, "a path begins with `/`"),
        (
            poll,
            r#", "result": "/jobs/{nmae}"}}"#,
            "`/jobs/{nmae}` has braces around no word; the words are `{id}`",
        ),
        (
            poll,
            r#", "result": "/the jobs"}}"#,
            "`/the jobs` cannot be asked for; write odd characters as %20",
        ),
        (
            poll,
            r#", "result": "/jobs#7"}}"#,
            "`/jobs#7` cannot be asked for",
        ),
        (poll, r#", "result": {"pth": "/"}}}"#, "unknown field `pth`"),
        (
            poll,
            r#", "result": 7}}"#,
            "expected a path, as `/jobs/{id}`, or a map with `path`",
        ),
        (
            poll,
            r#", "result": "/r", "result_url": "/url"}}"#,
            "poll.result_url: the result is at one place",
        ),
        (
            poll,
            r#", "result": "/r/{callback}"}}"#,
            "poll.result: only `submit` tells whom to call",
        ),
        (
            poll,
            r#", "failed": ["done"]}}"#,
            "poll.state: `done` is listed twice",
        ),
        (
            poll,
            r#", "failed": [{}]}}"#,
            "expected a word, a number, `true` or `false`",
        ),
        (
            poll,
            r#", "progress": {"at": "/p", "max": 100, "of": "/m"}}}"#,
            "poll.progress: give `max` or `of`, not both",
        ),
        (
            poll,
            r#", "progress": {"at": "/p", "max": 0}}}"#,
            "poll.progress.max: must be more than 0",
        ),
        (
            poll,
            r#", "progress": "p"}}"#,
            "a JSON pointer begins with `/`, got `p`",
        ),
        (
            poll,
            r#", "out_of_memory": ["oom"]}}"#,
            "poll.out_of_memory: say in `error` or `message`",
        ),
        (
            poll,
            r#", "error": "/e", "out_of_memory": [" "]}}"#,
            "poll.out_of_memory: an empty text stands in every message",
        ),
        (
            poll,
            r#", "every": "0s"}}"#,
            "poll.every: must be at least 10ms",
        ),
        (
            poll,
            r#", "every": 2}}"#,
            "expected a duration such as `500ms`, `2s` or `5m`",
        ),
        (
            poll,
            r#", "every": "soon"}}"#,
            "invalid value: string \"soon\", expected a duration",
        ),
        (
            poll,
            r#", "every": "5s", "every_max": "2s"}}"#,
            "poll.every_max: must not be less than `every`",
        ),
        (
            poll,
            r#", "lost_after": "0s"}}"#,
            "poll.lost_after: must be at least 10ms",
        ),
        (
            poll,
            r#", "find": {"path": "/by/{job}", "id": "/id"}}}"#,
            "poll.find.path: work is found by the attempt's own id",
        ),
        (
            poll,
            r#", "find": {"path": "/by/{attempt}", "id": "/id"}}}"#,
            "poll.find: nothing can be found by an id that was never sent",
        ),
        (
            r#"{"poll": {"id": {"header": "a b"}"#,
            "}}",
            "`a b` is not a header's name",
        ),
        (
            r#"{"poll": {"id": "id"}"#,
            "}",
            "a JSON pointer begins with `/`, got `id`",
        ),
        (
            r#"{"poll": {"id": "/id", "status": "/s", "state": "/s", "done": []}"#,
            "}",
            "poll.done: without a state that says so",
        ),
        (
            bare,
            "}}",
            "callback.submit: nothing tells the server whom to call",
        ),
        (
            call,
            r#", "done": ["x"]}}"#,
            "callback.done: say in `state` where the state stands",
        ),
        (
            call,
            r#", "failed": ["x"]}}"#,
            "callback.failed: say in `state` where the state stands",
        ),
        (
            call,
            r#", "state": "/s"}}"#,
            "callback.done: without a state that says so",
        ),
        (
            call,
            r#", "status": "/s"}}"#,
            "callback.status: its answer says nothing without `state`",
        ),
        (
            call,
            r#", "cancel": "/c/{id}"}}"#,
            "callback.cancel: nobody knows what the work is called; say in `id`",
        ),
        (
            call,
            r#", "result": {"path": "/r", "json": [{"a": "{id}"}]}}}"#,
            "callback.result: nobody knows what the work is called",
        ),
    ] {
        let block = format!("{block}{more}");
        let error = kind(&block).err().unwrap_or_default();
        assert!(error.contains(wants), "{block}: {error}");
    }
}

#[tokio::test]
async fn probes_carry_the_files_headers() {
    let node = Node::default().on("GET /health", 200, r#"{"jobs": {"inProgress": 2}}"#);
    let block = r#"{"headers": {"Authorization": "Bearer k"}, "probe": {"path": "/health", "busy": "/jobs/inProgress"}}"#;
    let vitals = kind(block).unwrap().probe(&node).await.unwrap();
    assert_eq!(vitals.busy, Some(2));
    assert_eq!(
        node.request("GET /health").headers()["authorization"],
        "Bearer k"
    );
}
