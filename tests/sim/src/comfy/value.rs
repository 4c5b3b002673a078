use super::json::Json;
use super::picture::{Picture, mark};
use super::spec::Model;
use std::sync::Arc;

/// What goes from node to node.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Pictures(Arc<Vec<Picture>>),
    Latent(Latent),
    /// A model, a text encoder, a conditioning, ..: something of which only matters whether it is the same.
    Thing {
        mark: u64,
        /// The model that has to be on the card when it is worked with.
        model: Option<Arc<Model>>,
    },
    /// What stands in the prompt.
    Plain(Json),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Latent {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) count: u32,
    /// What its pictures are made of.
    pub(crate) mark: u64,
}

// === impl Value ===

impl Value {
    pub(crate) fn pictures(pictures: Vec<Picture>) -> Self {
        Value::Pictures(Arc::new(pictures))
    }

    /// The same for the same value.
    pub(crate) fn mark(&self) -> u64 {
        match self {
            Value::Pictures(pictures) => {
                let marks: Vec<u8> = pictures
                    .iter()
                    .flat_map(|p| p.mark().to_be_bytes())
                    .collect();
                mark(&[&marks])
            }
            Value::Latent(latent) => {
                let size = [latent.width, latent.height, latent.count].map(u32::to_be_bytes);
                mark(&[&size.concat(), &latent.mark.to_be_bytes()])
            }
            Value::Thing { mark, .. } => *mark,
            Value::Plain(json) => mark(&[json.to_string().as_bytes()]),
        }
    }

    /// How an error shows it.
    pub(crate) fn told(&self) -> Json {
        match self {
            Value::Pictures(_) => "tensor([[[[0., 0., 0.],\n          ...]]]])".into(),
            Value::Latent(_) => "{'samples': tensor([[[[0., ...]]]])}".into(),
            Value::Thing { mark, .. } => format!("<comfy object at 0x{mark:016x}>").into(),
            Value::Plain(json) => json.clone(),
        }
    }
}
