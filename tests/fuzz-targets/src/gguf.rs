//! The GGUF reader and what is built on it: metadata, the shape of the model, its tokenizer and chat template, packing.

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use model_core::budget::CountDown;
use model_core::config::Config;
use model_core::fixtures::defects::sound;
use model_core::fixtures::{Parts, RawTensor};
use model_core::gguf::write::{Layout, NewTensor};
use model_core::gguf::{Array, File, Metadata, Value};
use model_core::kernels::Kernel;
use model_core::model::{LoadOptions, Loader, Model, Place};

use crate::pieces::{float, number, one_of, several, short_text};

/// Most bytes that weights may take: more than any file of a fuzzer has, so that only a wrong sum gets there.
const WEIGHT_BYTES: u64 = 64 << 20;

/// A file, a good file with some bytes changed, or a file whose fields are well-formed and whose content is not.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let file = match kind % 3 {
        0 => rest.to_vec(),
        1 => changed(&mut Unstructured::new(rest)).unwrap_or_default(),
        _ => assembled(&mut Unstructured::new(rest)).unwrap_or_default(),
    };
    check(file);
}

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| sound().build());

/// The good file with bytes replaced, removed or inserted.
fn changed(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut file = GOOD.clone();
    while !input.is_empty() && !file.is_empty() {
        let at = input.int_in_range(0..=file.len() - 1)?;
        match input.int_in_range(0..=4u8)? {
            0 => file[at] = u8::arbitrary(input)?,
            1 => {
                let bytes = number(input)?.to_le_bytes();
                let end = (at + 8).min(file.len());
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            2 => file.truncate(at),
            3 => file.insert(at, u8::arbitrary(input)?),
            _ => {
                file.remove(at);
            }
        }
    }
    Ok(file)
}

/// The metadata and tensors of a model, with others in front, so that duplicates and contradictions are common.
fn assembled(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut parts = PARTS.clone();
    for _ in 0..input.int_in_range(1..=6u8)? {
        let known = &PARTS.metadata[input.choose_index(PARTS.metadata.len())?].0;
        let key = if input.ratio(7, 8)? { known.clone() } else { short_text(input)? };
        parts = if input.ratio(7, 8)? { parts.set(&key, value(input, 0)?) } else { parts.without(&key) };
    }
    for _ in 0..input.int_in_range(0..=3u8)? {
        let at = input.choose_index(parts.tensors.len())?;
        spoil(input, &mut parts.tensors[at])?;
    }
    Ok(parts.build())
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| Parts::of(&GOOD).unwrap());

fn value(input: &mut Unstructured<'_>, depth: u32) -> Result<Value> {
    Ok(match input.int_in_range(0..=7u8)? {
        0 => Value::U32(number(input)? as u32),
        1 => Value::U64(number(input)?),
        2 => Value::I32(number(input)? as i32),
        3 => Value::F32(float(input)?),
        4 => Value::Bool(bool::arbitrary(input)?),
        5 => Value::String(short_text(input)?.into()),
        6 => Value::String(
            one_of(input, &["llama", "qwen2", "gemma3", "phi3", "qwen3", "mistral", "gpt2", "linear", "yarn"])?.into(),
        ),
        _ => Value::Array(match input.int_in_range(0..=3u8)? {
            0 => Array::I32(several(input, 8, |input| Ok(number(input)? as i32))?),
            1 => Array::F32(several(input, 8, float)?),
            2 => Array::String(several(input, 8, short_text)?.iter().map(String::as_str).collect()),
            _ if depth < 6 => match value(input, depth + 1)? {
                Value::Array(inner) => Array::Array(vec![inner]),
                _ => Array::Bool(vec![true; 3]),
            },
            _ => Array::U8(vec![0; 2]),
        }),
    })
}

fn spoil(input: &mut Unstructured<'_>, tensor: &mut RawTensor) -> Result<()> {
    match input.int_in_range(0..=5u8)? {
        0 => tensor.name = short_text(input)?.into(),
        1 => tensor.shape = several(input, 5, number)?,
        2 => tensor.type_id = u32::from(u8::arbitrary(input)? % 48),
        3 => tensor.offset = Some(number(input)?),
        4 => {
            let len = tensor.data.len();
            let at = input.int_in_range(0..=len)?;
            let bytes = float(input)?.to_le_bytes();
            let count = (len - at).min(4);
            tensor.data[at..at + count].copy_from_slice(&bytes[..count]);
        }
        _ => tensor.data.truncate(input.int_in_range(0..=tensor.data.len())?),
    }
    Ok(())
}

fn check(bytes: Vec<u8>) {
    let read = File::read(&bytes);
    if let Ok(file) = &read {
        ask_everything(file.metadata());
        check_tensors(file, bytes.len() as u64);
        check_written_again(file);
        let _ = (file.part(), Config::from_gguf(file));
    }
    let options =
        LoadOptions { place: Place { weight_bytes: WEIGHT_BYTES, ..Place::default() }, ..LoadOptions::default() };
    let whole = Model::load(&bytes, &options);
    let stepwise = in_steps(&bytes, &options);
    match (&whole, &stepwise) {
        (Ok(whole), Ok(stepwise)) => check_logits(whole, stepwise),
        (Err(_), Err(_)) => {}
        _ => panic!("at once {:?}, in steps {:?}", whole.as_ref().err(), stepwise.as_ref().err()),
    }
    assert!(read.is_ok() || whole.is_err());
}

fn in_steps(bytes: &[u8], options: &LoadOptions) -> std::result::Result<Model, model_core::Error> {
    let bytes = bytes.to_vec();
    let mut loader = Loader::new(LoadOptions { kernel: Kernel::by_name("scalar").ok(), ..options.clone() });
    while !loader.step(&bytes, &mut CountDown::new(2))?.ready {}
    loader.finish()
}

/// The same bits whoever loads and multiplies.
fn check_logits(whole: &Model, stepwise: &Model) {
    let tokens: Vec<u32> =
        (0..whole.config.context_length.min(3) as u32).map(|i| i % whole.config.vocab as u32).collect();
    let logits = |model: &Model| {
        let mut bits: Vec<u32> = Vec::new();
        model
            .logits_for(&tokens, |_, logits| bits.extend(logits.iter().map(|x| x.to_bits())))
            .map(|()| bits)
            .map_err(|error| error.to_string())
    };
    let expected = logits(whole);
    assert_eq!(logits(stepwise), expected);
    if let Ok(bits) = &expected {
        assert!(bits.iter().all(|&bits| f32::from_bits(bits).is_finite()));
    }
}

fn ask_everything(meta: &Metadata) {
    for (key, _) in meta.iter() {
        let _ = (meta.opt_u32(key), meta.opt_u64(key), meta.opt_f32(key), meta.opt_bool(key), meta.opt_str(key));
        let _ = (
            meta.opt_strings(key).map(|strings| strings.map(|strings| strings.iter().map(<[u8]>::len).sum::<usize>())),
            meta.opt_i32s(key),
            meta.opt_f32s(key),
        );
        assert!(meta.get(key).is_some());
    }
}

fn check_tensors(file: &File, len: u64) {
    for info in file.tensors() {
        assert_eq!(file.tensor(&info.name), Some(info));
        assert!(info.offset.checked_add(info.bytes).is_some_and(|end| end <= len), "{info:?} goes beyond {len}");
        assert!(info.elements() > 0);
    }
}

/// What was read can be written, and is read back.
fn check_written_again(file: &File) {
    let tensors: Vec<NewTensor> = file
        .tensors()
        .iter()
        .map(|info| NewTensor { name: info.name.clone(), shape: info.shape.clone(), ty: info.ty })
        .collect();
    let layout = Layout::new(file.metadata(), &tensors).unwrap();
    if layout.file_bytes() > 1 << 22 {
        return;
    }
    let mut bytes = layout.header.clone();
    bytes.resize(layout.file_bytes() as usize, 0);
    let again = File::read(&bytes).unwrap();
    assert!(again.metadata().iter().zip(file.metadata().iter()).all(|(a, b)| format!("{a:?}") == format!("{b:?}")));
    assert_eq!(again.tensors().len(), tensors.len());
}
