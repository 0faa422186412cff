//! Writing ONNX files: the few messages of `onnx.proto3` that a network of known shape needs, in the protobuf wire format.
//! They are made in memory, for the runtime alone.

/// Version of the file format, and of the operators used.
const IR_VERSION: u64 = 8;
const OPERATORS_VERSION: u64 = 20;
/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// An attribute of a node.
#[derive(Debug, Clone, Copy)]
pub enum Attribute<'a> {
    Int(i64),
    Ints(&'a [i64]),
}

/// One size of a shape that is told to the reader.
#[derive(Debug, Clone, Copy)]
pub enum Dimension {
    Any,
    Of(usize),
}

/// A network under construction. Nodes are in the order that they run in.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Message>,
    weights: Vec<Message>,
    named: usize,
}

impl Graph {
    /// Adds a node with one output; answers the output's name.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = self.name();
        self.node_called(&output, operator, inputs, attributes);
        output
    }

    /// As [`Graph::node`] with a name for the output.
    pub fn node_called(&mut self, output: &str, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) {
        let mut node = Message::default();
        for input in inputs {
            node.text(1, input);
        }
        node.text(2, output);
        node.text(3, output);
        node.text(4, operator);
        for (name, attribute) in attributes {
            node.message(5, &attribute_of(name, *attribute));
        }
        self.nodes.push(node);
    }

    /// Adds weights; answers their name.
    pub fn weights(&mut self, shape: &[usize], data: &[f32]) -> String {
        let bytes: Vec<u8> = data.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(shape, FLOAT, &bytes)
    }

    /// Adds a list of whole numbers, as operators take for shapes and positions; answers its name.
    pub fn integers(&mut self, data: &[i64]) -> String {
        let bytes: Vec<u8> = data.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(&[data.len()], INT64, &bytes)
    }

    fn constant(&mut self, shape: &[usize], kind: u64, bytes: &[u8]) -> String {
        let name = self.name();
        let mut tensor = Message::default();
        for size in shape {
            tensor.number(1, *size as u64);
        }
        tensor.number(2, kind);
        tensor.text(8, &name);
        tensor.bytes(9, bytes);
        self.weights.push(tensor);
        name
    }

    fn name(&mut self) -> String {
        self.named += 1;
        format!("v{}", self.named)
    }

    /// The file. Inputs and outputs are of `f32`.
    pub fn finish(self, name: &str, inputs: &[(&str, &[Dimension])], outputs: &[(&str, &[Dimension])]) -> Vec<u8> {
        let mut graph = Message::default();
        self.nodes.iter().for_each(|node| graph.message(1, node));
        graph.text(2, name);
        self.weights.iter().for_each(|weights| graph.message(5, weights));
        inputs.iter().for_each(|(name, shape)| graph.message(11, &value(name, shape)));
        outputs.iter().for_each(|(name, shape)| graph.message(12, &value(name, shape)));
        let mut operators = Message::default();
        operators.text(1, "");
        operators.number(2, OPERATORS_VERSION);
        let mut model = Message::default();
        model.number(1, IR_VERSION);
        model.text(2, "strata");
        model.message(7, &graph);
        model.message(8, &operators);
        model.0
    }
}

fn attribute_of(name: &str, attribute: Attribute) -> Message {
    let mut message = Message::default();
    message.text(1, name);
    let kind = match attribute {
        Attribute::Int(number) => {
            message.number(3, number.cast_unsigned());
            2
        }
        Attribute::Ints(numbers) => {
            numbers.iter().for_each(|number| message.number(8, number.cast_unsigned()));
            7
        }
    };
    message.number(20, kind);
    message
}

fn value(name: &str, shape: &[Dimension]) -> Message {
    let mut sizes = Message::default();
    for size in shape {
        let mut dimension = Message::default();
        match size {
            Dimension::Any => dimension.text(2, "n"),
            Dimension::Of(size) => dimension.number(1, *size as u64),
        }
        sizes.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.number(1, FLOAT);
    tensor.message(2, &sizes);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, &kind);
    message
}

/// A protobuf message: fields, each behind a key of its number and wire type.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
    fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }
    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rten::{Model, ModelOptions};
    use rten_tensor::NdTensor;

    #[test]
    fn a_varint_has_seven_bits_a_byte() {
        let mut message = Message::default();
        message.varint(300);
        assert_eq!(message.0, [0xac, 0x02]);
    }

    #[test]
    fn what_is_written_runs() {
        let mut graph = Graph::default();
        let weights = graph.weights(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let product = graph.node("MatMul", &["input", &weights], &[]);
        graph.node_called("output", "Flatten", &[&product], &[("axis", Attribute::Int(0))]);
        let file = graph.finish(
            "test",
            &[("input", &[Dimension::Any, Dimension::Of(2)])],
            &[("output", &[Dimension::Of(1), Dimension::Any])],
        );
        let model: Model = ModelOptions::with_all_ops().load(file).unwrap();
        let input = NdTensor::from_data([2, 2], vec![1.0_f32, 0.0, 1.0, 1.0]);
        let output = model.run_one(input.into(), None).unwrap();
        let output: NdTensor<f32, 2> = output.try_into().unwrap();
        assert_eq!(output.into_data(), [1.0, 2.0, 4.0, 6.0]);
    }
}
