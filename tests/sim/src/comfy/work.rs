//! What the classes do. All of it is the same every time, from the same inputs.

use super::disk::Kind;
use super::hub::Preview;
use super::json::{Json, object};
use super::library::Class;
use super::mosaic;
use super::picture::{Picture, made_up, mark};
use super::run::{Run, Stop};
use super::spec::Version;
use super::value::{Latent, Value};
use indexmap::IndexMap;
use std::sync::Arc;
use std::time::Duration;

/// What a node made, and what clients are shown of it.
type Done = (Vec<Value>, Option<Json>);

/// Bigger latents are shown smaller, as the real server does with its previews.
const MOST_PREVIEW: u32 = 64;

pub(crate) async fn work(
    run: &mut Run<'_>,
    node: &str,
    class: &Class,
    inputs: &IndexMap<String, Value>,
) -> Result<Done, Stop> {
    let inputs = Inputs(inputs);
    let made = |values| Ok((values, None));
    match class.works_as.as_str() {
        "CheckpointLoaderSimple" => {
            made(loaded(run, "checkpoints", inputs.text("ckpt_name"), 3).await?)
        }
        "UNETLoader" => made(loaded(run, "diffusion_models", inputs.text("unet_name"), 1).await?),
        "CLIPLoader" => made(loaded(run, "text_encoders", inputs.text("clip_name"), 1).await?),
        "VAELoader" => made(loaded(run, "vae", inputs.text("vae_name"), 1).await?),
        "LoraLoader" => {
            loaded(run, "loras", inputs.text("lora_name"), 1).await?;
            made(vec![
                inputs.patched("model", class),
                inputs.patched("clip", class),
            ])
        }
        "CLIPTextEncode" => made(vec![inputs.patched("clip", class)]),
        "EmptyLatentImage" | "EmptySD3LatentImage" => made(vec![Value::Latent(Latent {
            width: inputs.size("width"),
            height: inputs.size("height"),
            count: inputs.size("batch_size"),
            mark: 0,
        })]),
        "KSampler" => sample(run, node, inputs).await,
        "VAEDecode" => {
            let latent = inputs.latent("samples")?;
            let vae = inputs.mark_of("vae");
            made(vec![pictures(move || decoded(latent, vae)).await])
        }
        "VAEEncode" => {
            let from = inputs.pictures("pixels")?;
            let first = from
                .first()
                .ok_or(Stop::failed("IndexError", "list index out of range"))?;
            let latent = Latent {
                width: first.width,
                height: first.height,
                count: from.len() as u32,
                mark: inputs.mark_of("pixels") ^ inputs.mark_of("vae"),
            };
            made(vec![Value::Latent(latent)])
        }
        "EmptyImage" | "StubImage" => {
            let (width, height) = (inputs.size("width"), inputs.size("height"));
            let picture = match inputs.text("content") {
                // Nothing that could be made smaller: the same every time, unlike the real one.
                "NOISE" => heavy(move || Picture::noise(width, height)).await,
                content => {
                    let white = content == "WHITE";
                    let color = if white {
                        0x00ff_ffff
                    } else {
                        inputs.size("color")
                    };
                    let [_, r, g, b] = color.to_be_bytes();
                    Picture::flat(width, height, [r, g, b, 255])
                }
            };
            made(vec![Value::pictures(vec![
                picture;
                inputs.size("batch_size")
                    as usize
            ])])
        }
        "LoadImage" | "LoadImageMask" | "LoadImageOutput" => {
            let named = inputs.text("image").to_owned();
            let missing = || {
                Stop::failed(
                    "FileNotFoundError",
                    &format!("[Errno 2] No such file or directory: '{named}'"),
                )
            };
            let path = run.server.disk.input(&named).ok_or_else(missing)?;
            let bytes = std::fs::read(path).map_err(|_| missing())?;
            let picture = heavy(move || Picture::read(&bytes)).await;
            let mask = Value::Thing {
                mark: picture.alpha().mark(),
                model: None,
            };
            if class.works_as == "LoadImageMask" {
                return made(vec![mask]);
            }
            made(vec![Value::pictures(vec![picture.opaque()]), mask])
        }
        "ImageScale" => {
            let (width, height) = (inputs.size("width"), inputs.size("height"));
            inputs
                .changed("image", move |picture| {
                    // 0 keeps the proportions.
                    let scale = |of: u32, by: u32, to: u32| (of * by / to.max(1)).max(1);
                    match (width, height) {
                        (0, 0) => picture.clone(),
                        (0, height) => {
                            picture.scaled(scale(picture.width, height, picture.height), height)
                        }
                        (width, 0) => {
                            picture.scaled(width, scale(picture.height, width, picture.width))
                        }
                        (width, height) => picture.scaled(width, height),
                    }
                })
                .await
        }
        "ImageBlur" => inputs.changed("image", Picture::blurred).await,
        "ImageInvert" => inputs.changed("image", Picture::inverted).await,
        "ImageBatch" => {
            let [one, other] = [inputs.pictures("image1")?, inputs.pictures("image2")?];
            made(vec![Value::pictures(
                one.iter().chain(other.iter()).cloned().collect(),
            )])
        }
        "SaveImage" => save(run, inputs, Kind::Output).await,
        "PreviewImage" => save(run, inputs, Kind::Temp).await,
        "SaveImageWebsocket" => {
            let all = inputs.pictures("images")?;
            for i in 0..all.len() {
                let these = all.clone();
                let bytes = heavy(move || these[i].png(&[])).await;
                let preview = Preview {
                    is_png: true,
                    bytes,
                };
                run.step(node, i.into(), all.len().into(), Some(&preview));
            }
            made(Vec::new())
        }
        "PreviewAny" => {
            let text = inputs.0.get("source").map(Value::told).unwrap_or_default();
            let output = object! {"text": Json::List(vec![text.python().into()])};
            Ok((Vec::new(), Some(output)))
        }
        "TestSleep" => {
            sleep(run, node, inputs.number("seconds")).await?;
            made(inputs.0.get("value").cloned().into_iter().collect())
        }
        // What the recorded server answers, whose testing nodes were newer than itself.
        "TestAsyncProgressUpdate" if run.server.spec.version <= Version::RECORDED => {
            Err(Stop::failed(
                "AttributeError",
                "'ComfyAPIAdapter_v0_0_2' object has no attribute 'execution'",
            ))
        }
        "TestAsyncProgressUpdate" => {
            sleep(run, node, inputs.number("sleep_seconds")).await?;
            made(inputs.0.get("value").cloned().into_iter().collect())
        }
        "TestSyncError" => Err(Stop::failed(
            "RuntimeError",
            "Intentional sync execution error for testing",
        )),
        other => Err(Stop::failed("NotImplementedError", other)),
    }
}

async fn loaded(run: &Run<'_>, folder: &str, name: &str, outputs: u64) -> Result<Vec<Value>, Stop> {
    let missing = || {
        Stop::failed(
            "FileNotFoundError",
            &format!("Model in folder '{folder}' with filename '{name}' not found."),
        )
    };
    let model = run
        .server
        .spec
        .find(folder, name)
        .ok_or_else(missing)?
        .clone();
    run.load(&model).await?;
    let own = mark(&[folder.as_bytes(), model.name.as_bytes()]);
    let model = Arc::new(model);
    let output = |slot| Value::Thing {
        mark: own.wrapping_add(slot),
        model: (slot == 0).then(|| model.clone()),
    };
    Ok((0..outputs).map(output).collect())
}

async fn sample(run: &mut Run<'_>, node: &str, inputs: Inputs<'_>) -> Result<Done, Stop> {
    let latent = inputs.latent("latent_image")?;
    if let Some(Value::Thing {
        model: Some(model), ..
    }) = inputs.0.get("model")
    {
        run.load(model).await?;
    }
    let marks: Vec<u8> = inputs
        .0
        .values()
        .flat_map(|value| value.mark().to_be_bytes())
        .collect();
    let sampled = Latent {
        mark: mark(&[&marks]),
        ..latent
    };
    let steps = inputs.size("steps");
    for step in 1..=steps {
        let knobs = run.server.knobs();
        run.pause(knobs.time(knobs.step_ms as f64)).await?;
        let preview = knobs.previews.then(|| Preview {
            is_png: false,
            bytes: filled(preview(sampled, steps - step), run, knobs.preview_bytes),
        });
        run.step(
            node,
            i64::from(step).into(),
            i64::from(steps).into(),
            preview.as_ref(),
        );
    }
    Ok((vec![Value::Latent(sampled)], None))
}

/// What a latent looks like with so many steps to go: ever more of its squares are as they will be.
fn preview(latent: Latent, to_go: u32) -> Vec<u8> {
    let side = |pixels: u32| (pixels / 8).clamp(1, MOST_PREVIEW);
    let (columns, rows) = (side(latent.width), side(latent.height));
    mosaic::jpeg(columns as u16, rows as u16, |x, y| {
        let noisy = (x + y) % 8 < to_go;
        made_up(latent.mark ^ if noisy { u64::from(to_go) } else { 0 }, x, y)
    })
}

/// As large as previews are to be, and stamped where they are: viewers look no further than the picture's end.
fn filled(mut picture: Vec<u8>, run: &Run<'_>, least: usize) -> Vec<u8> {
    let stamp = run.server.spec.stamps_since.map(|since| {
        let nanos = since.elapsed().as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).to_be_bytes()
    });
    let stamp = stamp.as_ref().map_or(&[][..], |stamp| stamp);
    picture.resize(picture.len().max(least.saturating_sub(stamp.len())), 0);
    picture.extend(stamp);
    picture
}

fn decoded(latent: Latent, vae: u64) -> Vec<Picture> {
    let each = (0..latent.count).map(|i| {
        let mark = latent.mark ^ vae ^ u64::from(i);
        Picture::squares(latent.width, latent.height, |x, y| made_up(mark, x, y))
    });
    each.collect()
}

/// Tells every ten milliseconds how far it is, as the real node does; in seconds of its own time.
async fn sleep(run: &mut Run<'_>, node: &str, seconds: f64) -> Result<(), Stop> {
    let knobs = run.server.knobs();
    let whole = knobs.time(seconds * 1000.0);
    let start = tokio::time::Instant::now();
    loop {
        let slept = start.elapsed().min(whole);
        let part = if whole.is_zero() {
            1.0
        } else {
            slept.as_secs_f64() / whole.as_secs_f64()
        };
        run.step(node, (seconds * part).into(), seconds.into(), None);
        if slept >= whole {
            return Ok(());
        }
        run.pause((whole - slept).min(Duration::from_millis(10)))
            .await?;
    }
}

async fn save(run: &Run<'_>, inputs: Inputs<'_>, kind: Kind) -> Result<Done, Stop> {
    let pictures = inputs.pictures("images")?;
    let prefix = match kind {
        Kind::Temp => format!("ComfyUI_temp_{}", letters(run)),
        _ => inputs.text("filename_prefix").to_owned(),
    };
    let size = pictures
        .first()
        .map_or((0, 0), |first| (first.width, first.height));
    let path = run.server.disk.save_path(kind, &prefix, size.0, size.1);
    let path = path.map_err(|why| Stop::failed("Exception", &why))?;
    let mut texts = vec![("prompt".to_owned(), Json::from(run.item.prompt.clone()))];
    let workflow = run
        .item
        .extra_data
        .get("extra_pnginfo")
        .and_then(Json::object);
    texts.extend(
        workflow
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let saved = heavy(move || {
        let mut saved = Vec::new();
        for (i, picture) in pictures.iter().enumerate() {
            let name = path.name.replace("%batch_num%", &i.to_string());
            let name = format!("{name}_{:05}_.png", path.counter + i as u32);
            std::fs::write(path.folder.join(&name), picture.png(&texts))?;
            saved.push(object! {
                "filename": name,
                "subfolder": path.subfolder.as_str(),
                "type": kind.name(),
            });
        }
        Ok::<_, std::io::Error>(saved)
    });
    let saved = saved
        .await
        .map_err(|error| Stop::failed("OSError", &error.to_string()))?;
    Ok((Vec::new(), Some(object! {"images": saved})))
}

/// Five letters that are a node's own, for as long as each prompt has it.
fn letters(run: &Run<'_>) -> String {
    let own = [run.server.life, run.object].map(u64::to_be_bytes);
    let mut left = mark(&[run.server.spec.name.as_bytes(), &own.concat()]);
    let letter = |_| {
        let letter = char::from(b'a' + (left % 26) as u8);
        left /= 26;
        letter
    };
    (0..5).map(letter).collect()
}

async fn pictures(make: impl FnOnce() -> Vec<Picture> + Send + 'static) -> Value {
    Value::pictures(heavy(make).await)
}

/// Does what takes long aside, so that answers do not wait for it.
async fn heavy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// The inputs of a node, by name.
#[derive(Clone, Copy)]
struct Inputs<'a>(&'a IndexMap<String, Value>);

// === impl Inputs ===

impl<'a> Inputs<'a> {
    fn plain(self, name: &str) -> Option<&'a Json> {
        match self.0.get(name)? {
            Value::Plain(json) => Some(json),
            _ => None,
        }
    }

    fn text(self, name: &str) -> &'a str {
        self.plain(name).and_then(Json::text).unwrap_or("")
    }

    fn number(self, name: &str) -> f64 {
        self.plain(name).and_then(Json::number).unwrap_or(0.0)
    }

    fn size(self, name: &str) -> u32 {
        self.number(name) as u32
    }

    fn mark_of(self, name: &str) -> u64 {
        self.0.get(name).map_or(0, Value::mark)
    }

    fn pictures(self, name: &str) -> Result<Arc<Vec<Picture>>, Stop> {
        match self.0.get(name) {
            Some(Value::Pictures(pictures)) => Ok(pictures.clone()),
            other => {
                let kind = match other {
                    Some(Value::Plain(json)) => json.python_type(),
                    _ => "NoneType",
                };
                let told = format!("'{kind}' object has no attribute 'shape'");
                Err(Stop::failed("AttributeError", &told))
            }
        }
    }

    fn latent(self, name: &str) -> Result<Latent, Stop> {
        match self.0.get(name) {
            Some(Value::Latent(latent)) => Ok(*latent),
            _ => Err(Stop::failed(
                "TypeError",
                "'NoneType' object is not subscriptable",
            )),
        }
    }

    /// A model that another was laid over.
    fn patched(self, name: &str, class: &Class) -> Value {
        let marks: Vec<u8> = self
            .0
            .values()
            .flat_map(|value| value.mark().to_be_bytes())
            .collect();
        let model = match self.0.get(name) {
            Some(Value::Thing { model, .. }) => model.clone(),
            _ => None,
        };
        Value::Thing {
            mark: mark(&[class.works_as.as_bytes(), name.as_bytes(), &marks]),
            model,
        }
    }

    async fn changed(
        self,
        name: &str,
        change: impl Fn(&Picture) -> Picture + Send + 'static,
    ) -> Result<Done, Stop> {
        let from = self.pictures(name)?;
        let changed = move || from.iter().map(change).collect();
        Ok((vec![pictures(changed).await], None))
    }
}
