use crate::twins::{Ask, Pieces, Twins, tree};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tabane_api::Content;

#[tokio::test]
async fn a_form_of_which_nothing_comes_is_not_read_into_memory() {
    let twins = Twins::start().await;
    let endless = |begin: &str| {
        let mut body = begin.as_bytes().to_vec();
        body.resize(40 << 20, b'x');
        Bytes::from(body)
    };
    for begin in [
        // No part ever begins; its head never ends; a text never ends; a name is very long.
        "",
        "--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\nX: ",
        "--X\r\nContent-Disposition: form-data; name=\"subfolder\"\r\n\r\n",
        "--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"",
    ] {
        let ask = Ask::post("/upload/image", Bytes::new())
            .with("content-type", "multipart/form-data; boundary=X");
        let body = Arc::new(Pieces::of(endless(begin), usize::MAX));
        let told = twins.answered(&ask, Content::Stored(body.clone())).await;
        assert_eq!(told.unwrap().status, 500);
        let read = body.read.load(Ordering::Relaxed);
        assert!(read < 3 << 20, "{read} bytes were read: {begin}");
    }
    assert_eq!(tree(&twins.here("input")).len(), 1);
    assert!(tree(&twins.here(".drafts")).is_empty());
}

#[tokio::test]
async fn no_request_leads_out_of_the_folder_or_to_what_is_the_gateways() {
    let twins = Twins::start().await;
    std::fs::write(twins.here("secret.txt"), "secret").unwrap();
    std::fs::write(twins.here(".drafts/secret.txt"), "secret").unwrap();
    std::fs::write(twins.here("user/users.json"), r#"{"default": "secret"}"#).unwrap();
    std::fs::write(twins.here("output/.draft-secret"), "secret").unwrap();
    let asks = [
        "/view?filename=../secret.txt",
        "/view?filename=secret.txt&subfolder=..",
        "/view?filename=secret.txt&subfolder=../.drafts",
        "/view?filename=secret.txt&subfolder=%2e%2e%2f",
        "/view?filename=secret.txt&subfolder=a/../..",
        "/view?filename=%2Fetc%2Fpasswd",
        "/view?filename=passwd&subfolder=/etc",
        "/view?filename=.draft-secret",
        "/view?filename=x%00.png",
        "/view?filename=secret.txt&subfolder=x%00",
        "/internal/files/output",
        "/internal/files/..",
        "/userdata/..%2Fusers.json",
        "/userdata/%252e%252e%252Fusers.json",
        "/userdata/..%2F..%2Fsecret.txt",
        "/userdata/%2Fetc%2Fpasswd",
        "/userdata/x%00",
        "/userdata?dir=..",
        "/userdata?dir=%252e%252e",
        "/v2/userdata?path=..",
        "/v2/userdata?path=%252e%252e",
    ];
    for path in asks {
        let told = twins.ask_here(&Ask::get(path)).await;
        let text = String::from_utf8_lossy(&told.body);
        assert!(!text.contains("secret"), "{path}: {told:?}");
        assert!(!text.contains("root:"), "{path}: {told:?}");
        assert!(told.status < 500, "{path}: {told:?}");
    }
    let long = "x".repeat(5000);
    for path in [
        format!("/view?filename={long}"),
        format!("/view?filename=a&subfolder={long}"),
        format!("/userdata/{long}"),
    ] {
        assert_eq!(twins.ask_here(&Ask::get(path)).await.status, 404);
    }
    for id in ["", ".", "..", "a/b", "a\\b", "__system", ".hidden", "a\0b"] {
        assert!(twins.files.user(id).is_none(), "{id} is no user's id");
    }
}
