// A traced program, replayed: strided arrays, and a loop for every primitive.
//
// `program(text)` takes what tinyleak's `Program.export` wrote; tinyleak/program/export.py says what
// that is. Nothing is compiled from text, so the strictest content policy allows it.
"use strict";

const KINDS = {
  float64: Float64Array,
  float32: Float32Array,
  bool: Uint8Array,
  int64: Float64Array,
};

/** The bytes that base64 stands for. */
function decoded(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

/** A program, ready to run: `set(k, numbers)`, `run()`, `get(k)`; or `call(...all inputs)`. */
function program(text) {
  const said = typeof text === "string" ? JSON.parse(text) : text;
  if (said.format !== "tinyleak.program" || said.version !== 1)
    throw new Error("no program of version 1");
  const whole = new Set(
    said.arrays.filter(([kind]) => kind === "int64").map(([, buffer]) => buffer),
  );
  const memory = said.buffers.map(({ bytes, data }, number) => {
    const buffer = data === undefined ? new ArrayBuffer(Math.ceil(bytes / 8) * 8) : decoded(data);
    // Whole numbers are held as float64, of the same size.
    return data !== undefined && whole.has(number)
      ? Float64Array.from(new BigInt64Array(buffer), Number).buffer
      : buffer;
  });
  const views = new Map(); // one typed array for each buffer and kind: loops then see the same object
  const view = (kind, buffer) => {
    const key = `${KINDS[kind].name} ${buffer}`;
    if (!views.has(key))
      views.set(
        key,
        new KINDS[kind](
          memory[buffer],
          0,
          Math.floor(memory[buffer].byteLength / KINDS[kind].BYTES_PER_ELEMENT),
        ),
      );
    return views.get(key);
  };
  const arrays = said.arrays.map(([kind, buffer, start, shape, strides]) => ({
    data: view(kind, buffer),
    start,
    shape,
    strides,
  }));
  const steps = said.instructions.map(([name, out, reads, params]) => {
    if (!Object.hasOwn(PRIMITIVES, name))
      throw new Error(`there is no loop for the primitive ${name}`);
    return PRIMITIVES[name](
      arrays[out],
      reads.map((k) => arrays[k]),
      params,
    );
  });
  const ports = (numbers) => numbers.map((k) => ({ data: arrays[k].data, at: places(arrays[k]) }));
  const inputs = ports(said.inputs);
  const outputs = ports(said.outputs);
  const ready = {
    set(k, numbers) {
      const { data, at } = inputs[k];
      if (numbers.length !== at.length)
        throw new Error(`input ${k} has ${at.length} numbers, not ${numbers.length}`);
      for (let i = 0; i < at.length; i++) data[at[i]] = numbers[i];
    },
    run() {
      for (let i = 0; i < steps.length; i++) steps[i]();
    },
    get(k) {
      const { data, at } = outputs[k];
      return Float64Array.from(at, (place) => data[place]);
    },
    call(...numbers) {
      numbers.forEach((one, k) => ready.set(k, one));
      ready.run();
      return outputs.map((_, k) => ready.get(k));
    },
  };
  return ready;
}
