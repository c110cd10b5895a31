/**
 * MessagePack from strangers: the bytes are walked before anything is decoded, so that no header can claim more than was
 * sent, nothing nests too deeply, there are not too many values, texts are UTF-8 and keys are texts, and no extension but the
 * timestamp (https://msgpack.org) comes through.
 */
import { isUtf8 } from 'node:buffer'
import { Unpackr } from 'msgpackr/unpack'
import { MillraceError, type PayloadIssue } from '../contracts/errors.ts'
import { DEPTH_MAX, isForbiddenKey, payloadRefusal } from './payload-limits.ts'

/** `auto` makes a 64-bit integer a number wherever that is exact; msgpackr's own types don't list it. */
const DECODING: object = { useRecords: false, mapsAsObjects: true, moreTypes: false, int64AsType: 'auto' }
const unpackr = new Unpackr(DECODING)

const TIMESTAMP_EXTENSION = 0xff
/** Of a body, arrays, maps and keys included; each costs time and memory, however few its bytes. */
const VALUES_MAX = 1024 ** 2

/** Where one value of a body stands, and why it may not be decoded. */
export interface MsgpackSlice {
  readonly bytes: Buffer
  readonly issue: PayloadIssue | undefined
}

/**
 * Decodes a body that holds one value.
 *
 * @throws MillraceError `command.malformed`, `command.invalid`
 */
export function decodeMsgpack(body: Buffer): unknown {
  const walk = new MsgpackWalk(body)
  const slice = walk.slice(DEPTH_MAX)
  if (walk.at !== body.length) throw malformed('bytes are left after the value')
  return decodeSlice(slice)
}

/**
 * The items of a body that holds one array, each still undecoded.
 *
 * @throws MillraceError `command.malformed` when the bytes are no MessagePack, `command.invalid` when they hold no array
 */
export function sliceMsgpackArray(body: Buffer, countMax: number): MsgpackSlice[] {
  const walk = new MsgpackWalk(body)
  const count = walk.arrayCount()
  if (count === undefined) {
    // What is no MessagePack at all is told as that.
    decodeMsgpack(body)
    throw new MillraceError('command.invalid', 'Send an array of commands.')
  }
  if (count > countMax) {
    if (count > body.length) throw malformed(TOO_LONG)
    throw new MillraceError(
      'command.too-large',
      `The body holds ${count} commands; at most ${countMax} are taken at once.`,
    )
  }
  const slices: MsgpackSlice[] = []
  for (let i = 0; i < count; i++) slices.push(walk.slice(DEPTH_MAX + 1))
  if (walk.at !== body.length) throw malformed('bytes are left after the value')
  return slices
}

/** @throws MillraceError `command.invalid`, `command.malformed` */
export function decodeSlice({ bytes, issue }: MsgpackSlice): unknown {
  if (issue !== undefined) throw payloadRefusal({ pointer: `#${issue.pointer}`, detail: issue.detail })
  try {
    return unpackr.unpack(bytes)
  } catch {
    throw malformed('it can not be decoded')
  }
}

const TOO_LONG = 'a length is larger than what follows'

function malformed(why: string): MillraceError {
  return new MillraceError('command.malformed', `The body is not MessagePack: ${why}.`)
}

type Shape = 'scalar' | 'array' | 'map' | 'text' | 'extension'

/** What one header says: `count` of children for arrays, of pairs for maps; bytes that follow for the others. */
interface Head {
  readonly shape: Shape
  readonly count: number
}

const NO_TEXT = 'is a text that is not UTF-8'

class MsgpackWalk {
  readonly #bytes: Buffer
  #at = 0
  #values = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get at(): number {
    return this.#at
  }

  arrayCount(): number | undefined {
    const { shape, count } = this.#head()
    return shape === 'array' ? count : undefined
  }

  /** The next value, and the first thing that may not be in it. */
  slice(depthMax: number): MsgpackSlice {
    const [from, values] = [this.#at, this.#values]
    const issue = this.#inspect(depthMax)
    if (issue !== undefined) {
      // It stopped inside; the value ends further on.
      this.#at = from
      this.#values = values
      this.#skip()
    }
    return { bytes: this.#bytes.subarray(from, this.#at), issue }
  }

  /** Steps over one value, however deep. */
  #skip(): void {
    for (let open = 1; open > 0; open--) {
      const { shape, count } = this.#head()
      if (shape === 'array') open += count
      else if (shape === 'map') open += 2 * count
      if (open > this.#bytes.length - this.#at + 1) throw malformed(TOO_LONG)
    }
  }

  #inspect(depth: number): PayloadIssue | undefined {
    const { shape, count } = this.#head()
    if (shape === 'extension') return { pointer: '', detail: 'is an extension type that is not allowed' }
    if (shape === 'text') return this.#isText(count) ? undefined : { pointer: '', detail: NO_TEXT }
    if (shape === 'scalar') return undefined
    if (count > this.#bytes.length - this.#at) throw malformed(TOO_LONG)
    if (depth === 0) return { pointer: '', detail: `is nested deeper than ${DEPTH_MAX} levels` }
    for (let i = 0; i < count; i++) {
      const key = shape === 'map' ? this.#key() : String(i)
      if (key === undefined) return { pointer: '', detail: 'has a key that is not a text in UTF-8' }
      if (shape === 'map' && isForbiddenKey(key))
        return { pointer: `/${key}`, detail: 'is a key that is not allowed' }
      const issue = this.#inspect(depth - 1)
      if (issue !== undefined)
        return { pointer: `/${key.slice(0, 80)}${issue.pointer}`, detail: issue.detail }
    }
    return undefined
  }

  #key(): string | undefined {
    const { shape, count } = this.#head()
    if (shape !== 'text' || !this.#isText(count)) return undefined
    return this.#bytes.toString('utf8', this.#at - count, this.#at)
  }

  /** Whether the bytes just stepped over are UTF-8: others would become another text without a word. */
  #isText(length: number): boolean {
    for (let at = this.#at - length; at < this.#at; at++) {
      if ((this.#bytes[at] ?? 0) >= 0x80) return isUtf8(this.#bytes.subarray(at, this.#at))
    }
    return true
  }

  /** Reads one header and steps over the bytes that belong to it, children excepted. */
  #head(): Head {
    this.#values += 1
    if (this.#values > VALUES_MAX) {
      throw new MillraceError('command.too-large', 'The body holds too many values: send less at once.')
    }
    const byte = this.#uint(1)
    if (byte < 0x80 || byte >= 0xe0) return this.#of('scalar', 0)
    if (byte < 0x90) return this.#of('map', byte & 0x0f)
    if (byte < 0xa0) return this.#of('array', byte & 0x0f)
    if (byte < 0xc0) return this.#of('text', byte & 0x1f)
    switch (byte) {
      case 0xc0:
      case 0xc2:
      case 0xc3:
        return this.#of('scalar', 0)
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#of('scalar', this.#uint(1 << (byte - 0xc4)))
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#uint(1 << (byte - 0xc7)))
      case 0xca:
        return this.#of('scalar', 4)
      case 0xcb:
        return this.#of('scalar', 8)
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.#of('scalar', 1 << (byte - 0xcc))
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return this.#of('scalar', 1 << (byte - 0xd0))
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(1 << (byte - 0xd4))
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#of('text', this.#uint(1 << (byte - 0xd9)))
      case 0xdc:
        return this.#of('array', this.#uint(2))
      case 0xdd:
        return this.#of('array', this.#uint(4))
      case 0xde:
        return this.#of('map', this.#uint(2))
      case 0xdf:
        return this.#of('map', this.#uint(4))
      default:
        throw malformed(`byte 0x${byte.toString(16)} means nothing`)
    }
  }

  #of(shape: Shape, count: number): Head {
    if (shape === 'scalar' || shape === 'text') this.#step(count)
    return { shape, count }
  }

  /** A timestamp has 4, 8 or 12 bytes. */
  #extension(length: number): Head {
    const type = this.#uint(1)
    this.#step(length)
    const isTimestamp = type === TIMESTAMP_EXTENSION && (length === 4 || length === 8 || length === 12)
    return { shape: isTimestamp ? 'scalar' : 'extension', count: length }
  }

  #uint(length: number): number {
    const from = this.#at
    this.#step(length)
    return this.#bytes.readUIntBE(from, length)
  }

  #step(length: number): void {
    this.#at += length
    if (this.#at > this.#bytes.length) throw malformed('it ends too early')
  }
}
