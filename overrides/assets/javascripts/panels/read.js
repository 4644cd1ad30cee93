// Reads what sitekit/exploration.py writes.

class Field {
  constructor({ values, colours, ...rest }, bytes) {
    Object.assign(this, rest)
    const { shape, at, zero } = values
    this.leading = shape.slice(0, -2)
    ;[this.height, this.width] = shape.slice(-2)
    this.count = this.leading.reduce((product, size) => product * size, 1)
    this.zero = zero
    this.steps = new Float32Array(bytes.slice(at, at + 4 * this.count).buffer)
    this.bytes = bytes.subarray(at + 4 * this.count)
    this.colours = Uint8Array.from(colours.match(/../g), (figures) => parseInt(figures, 16))
  }

  // The numbers (H, W) for one choice of each leading dimension; one of size 1 is the same for all choices
  at(...choice) {
    const place = this.leading.reduce((sum, size, dimension) => sum * size + Math.min(choice[dimension], size - 1), 0)
    const size = this.height * this.width
    const counts = this.bytes.subarray(place * size, (place + 1) * size)
    return Float64Array.from(counts, (count) => (count - this.zero) * this.steps[place])
  }
}

export const read = async (address) => {
  const { body } = await fetch(address)
  const unpacked = new Response(body.pipeThrough(new DecompressionStream("gzip")))
  const bytes = new Uint8Array(await unpacked.arrayBuffer())
  const end = bytes.indexOf(10)
  const panel = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)))
  panel.fields = panel.fields.map((field) => new Field(field, bytes.subarray(end + 1)))
  return panel
}
