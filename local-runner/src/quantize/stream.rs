//! Tensor data from one file to another: read, decoded, quantized on all threads and written in order, a bounded piece at a
//! time. Knows nothing of which tensor should have which type.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use model_core::gguf::write::{Layout, NewTensor};
use model_core::gguf::{GgmlType, TensorInfo};
use model_core::quant;
use model_core::source::ByteSource;
use rayon::prelude::*;

use crate::interrupt::Interrupted;

/// Weights that one thread handles at a time, a multiple of every block length: 4 MiB as `f32`.
const PIECE: u64 = 1 << 20;
/// Pieces per thread between writes, so that threads wait little for each other.
const PIECES_PER_THREAD: usize = 4;

/// What the copying tells and asks on its way.
pub trait Watch {
    /// So many bytes of the new file's tensor data are written.
    fn written(&mut self, bytes: u64);

    /// Whether to give up.
    fn is_interrupted(&self) -> bool;
}

/// Writes the whole new file: the header of `layout`, then the data of `old` as the types of `new`, pairwise.
///
/// # Errors
/// A value that the type cannot hold, a source or an output that fails, or an interruption.
pub fn write(
    out: &mut dyn Write,
    source: &(dyn ByteSource + Sync),
    (old, new): (&[TensorInfo], &[NewTensor]),
    layout: &Layout,
    watch: &mut dyn Watch,
) -> Result<()> {
    out.write_all(&layout.header)?;
    let mut written = 0;
    for ((old, new), extent) in old.iter().zip(new).zip(&layout.tensors) {
        for wave in waves(old.elements()) {
            if watch.is_interrupted() {
                bail!(Interrupted);
            }
            let pieces: Vec<Vec<u8>> =
                wave.into_par_iter().map(|piece| convert(source, old, new.ty, piece)).collect::<Result<_>>()?;
            for piece in pieces {
                out.write_all(&piece)?;
                written += piece.len() as u64;
            }
            watch.written(written);
        }
        io::copy(&mut io::Read::take(io::repeat(0), extent.padding), out)?;
        written += extent.padding;
    }
    Ok(())
}

/// A run of weights within a tensor.
#[derive(Debug, Clone, Copy)]
struct Piece {
    first: u64,
    len: u64,
}

/// The pieces of a tensor, as many together as are handled between two writes.
fn waves(elements: u64) -> Vec<Vec<Piece>> {
    let pieces = (0..elements).step_by(PIECE as usize);
    let pieces: Vec<_> = pieces.map(|first| Piece { first, len: PIECE.min(elements - first) }).collect();
    pieces.chunks(PIECES_PER_THREAD * rayon::current_num_threads()).map(<[_]>::to_vec).collect()
}

fn convert(source: &dyn ByteSource, tensor: &TensorInfo, ty: GgmlType, piece: Piece) -> Result<Vec<u8>> {
    let (block, block_bytes) = (tensor.ty.block_elements() as u64, tensor.ty.block_bytes() as u64);
    let mut bytes = vec![0; (piece.len / block * block_bytes) as usize];
    source.read_at(tensor.offset + piece.first / block * block_bytes, &mut bytes)?;
    if tensor.ty == ty {
        return Ok(bytes);
    }
    let mut values = vec![0.0; piece.len as usize];
    let told = || format!("tensor {} cannot be quantized to {ty}", tensor.name);
    quant::dequantize(tensor.ty, &bytes, &mut values).with_context(told)?;
    if let Some(at) = values.iter().position(|value| !holds(ty, *value)) {
        let (index, value) = (piece.first + at as u64, values[at]);
        bail!(
            "{}: its value {value} at index {index} is not finite, or beyond half precision; use F32 or BF16",
            told()
        );
    }
    quant::quantize(ty, &values).with_context(told)
}

/// Whether a type can hold a value: F32 and BF16 any, the others, whose scales are half floats, those of half precision.
fn holds(ty: GgmlType, value: f32) -> bool {
    /// Half way from the greatest half float to where the next would be.
    const BEYOND_HALF: f32 = 65520.0;
    matches!(ty, GgmlType::F32 | GgmlType::BF16) || value.abs() < BEYOND_HALF
}

#[cfg(test)]
mod tests {
    use model_core::gguf::{File, Metadata};

    use super::*;

    /// Counts, and interrupts after so many calls.
    struct Counting {
        written: Vec<u64>,
        interrupt_at: usize,
    }

    impl Watch for Counting {
        fn written(&mut self, bytes: u64) {
            self.written.push(bytes);
        }

        fn is_interrupted(&self) -> bool {
            self.written.len() >= self.interrupt_at
        }
    }

    /// A file with one F32 tensor of these values, and its quantized version.
    fn quantized(values: &[f32], ty: GgmlType, interrupt_at: usize) -> Result<(Vec<u8>, Vec<u64>)> {
        let shape = vec![values.len() as u64];
        let tensor = |ty| NewTensor { name: "t".into(), shape: shape.clone(), ty };
        let metadata = Metadata::default();
        let mut source = Layout::new(&metadata, &[tensor(GgmlType::F32)])?.header;
        source.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let (file, new) = (File::read(&source)?, [tensor(ty)]);
        let layout = Layout::new(&metadata, &new)?;
        let (mut out, mut watch) = (Vec::new(), Counting { written: Vec::new(), interrupt_at });
        write(&mut out, &source, (file.tensors(), &new), &layout, &mut watch)?;
        assert_eq!(out.len() as u64, layout.file_bytes());
        Ok((out[layout.header.len()..].to_vec(), watch.written))
    }

    #[test]
    fn pieces_and_waves_give_the_blocks_of_the_whole() {
        let len = (PIECE as usize) * (PIECES_PER_THREAD * rayon::current_num_threads() + 1) + 96;
        let values: Vec<f32> = (0..len).map(|i| (i % 1013) as f32 - 500.0).collect();
        for ty in [GgmlType::Q4_1, GgmlType::F16, GgmlType::F32] {
            let (data, written) = quantized(&values, ty, usize::MAX).unwrap();
            let expected = quant::quantize(ty, &values).unwrap();
            assert!(data[..expected.len()] == expected, "{ty}");
            assert_eq!((written.len(), written[1]), (2, expected.len() as u64));
        }
        let error = quantized(&values, GgmlType::Q8_0, 1).unwrap_err();
        assert!(error.is::<Interrupted>(), "{error}");
    }

    #[test]
    fn a_value_that_the_type_cannot_hold_is_named() {
        let mut values = [1.0; 64];
        for (value, refusing) in [(7e4, [GgmlType::F16, GgmlType::Q5_1]), (f32::NAN, [GgmlType::F16, GgmlType::Q8_0])] {
            values[40] = value;
            for ty in refusing {
                let error = quantized(&values, ty, usize::MAX).unwrap_err().to_string();
                assert!(error.contains("tensor t") && error.contains("index 40"), "{error}");
            }
            quantized(&values, GgmlType::BF16, usize::MAX).unwrap();
        }
    }

    #[test]
    fn a_full_disk_is_passed_on() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let layout = Layout::new(&Metadata::default(), &[]).unwrap();
        let mut watch = Counting { written: Vec::new(), interrupt_at: 1 };
        let error = write(&mut Full, &Vec::new(), (&[], &[]), &layout, &mut watch).unwrap_err();
        assert_eq!(error.downcast_ref::<io::Error>().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }
}
