// Protobuf by hand, as far as it is needed here.

export function varint (value) {
  const bytes = []
  for (; value >= 0x80; value = Math.floor(value / 128)) bytes.push(value % 128 | 0x80)
  return Buffer.from([...bytes, value])
}

/** A field of bytes; numbers up to 15. */
export const field = (number, value) =>
  Buffer.concat([Buffer.from([number << 3 | 2]), varint(value.length), value])

export const lengthPrefixed = (bytes) => Buffer.concat([varint(bytes.length), bytes])

/** The first message behind its length, and what is after it; none yet is null. */
export function whole (bytes) {
  const end = bytes.findIndex((byte) => byte < 0x80) + 1
  const length = bytes.subarray(0, end).reduceRight((sum, byte) => sum * 128 + (byte & 0x7f), 0)
  if (end === 0 || bytes.length < end + length) return [null, bytes]
  return [bytes.subarray(end, end + length), bytes.subarray(end + length)]
}

/** The fields of a message by their numbers; of several with one number the last. */
export function fields (bytes) {
  const found = new Map()
  let at = 0
  const number = () => {
    let value = 0
    for (let weight = 1; ; weight *= 128) {
      const byte = bytes[at++]
      if (byte == null) throw new Error('cut short')
      value += (byte & 0x7f) * weight
      if (byte < 0x80) return value
    }
  }
  while (at < bytes.length) {
    const key = number()
    const value = number()
    if ((key & 7) === 2) {
      found.set(Math.floor(key / 8), bytes.subarray(at, at + value))
      at += value
    } else {
      found.set(Math.floor(key / 8), value)
    }
  }
  return found
}
