/**
 * MessagePack from strangers: the bytes are walked before anything is decoded, so that no header can claim more than was
 * sent, nothing nests too deeply, keys are texts, and no extension but the timestamp (https://msgpack.org) comes through.
 */
import { Unpackr } from 'msgpackr/unpack'
import { MillraceError, type PayloadIssue } from '../contracts/errors.ts'
import { DEPTH_MAX, isForbiddenKey, payloadRefusal } from './payload-limits.ts'

/** `auto` makes a 64-bit integer a number wherever that is exact; msgpackr's own types don't list it. */
const DECODING: object = { useRecords: false, mapsAsObjects: true, moreTypes: false, int64AsType: 'auto' }
const unpackr = new Unpackr(DECODING)

const TIMESTAMP_EXTENSION = 0xff

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
  if (new MsgpackWalk(body, 0).skip() !== body.length) throw malformed('bytes are left after the value')
  return decodeSlice({ bytes: body, issue: inspect(body, DEPTH_MAX) })
}

/**
 * The items of a body that holds one array, each still undecoded.
 *
 * @throws MillraceError `command.malformed` when the bytes are no MessagePack, `command.invalid` when they hold no array
 */
export function sliceMsgpackArray(body: Buffer, countMax: number): MsgpackSlice[] {
  const walk = new MsgpackWalk(body, 0)
  if (walk.skip() !== body.length) throw malformed('bytes are left after the value')
  const head = new MsgpackWalk(body, 0).arrayHead()
  if (head === undefined) throw new MillraceError('command.invalid', 'Send an array of commands.')
  if (head.count > countMax) {
    throw new MillraceError(
      'command.too-large',
      `The body holds ${head.count} commands; at most ${countMax} are taken at once.`,
    )
  }
  const slices: MsgpackSlice[] = []
  let at = head.at
  for (let i = 0; i < head.count; i++) {
    const end = new MsgpackWalk(body, at).skip()
    const bytes = body.subarray(at, end)
    slices.push({ bytes, issue: inspect(bytes, DEPTH_MAX + 1) })
    at = end
  }
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

function inspect(bytes: Buffer, depthMax: number): PayloadIssue | undefined {
  return new MsgpackWalk(bytes, 0).inspect(depthMax)
}

function malformed(why: string): MillraceError {
  return new MillraceError('command.malformed', `The body is not MessagePack: ${why}.`)
}

type Shape = 'scalar' | 'array' | 'map' | 'text' | 'extension'

/** What one header says: `count` of children for arrays, of pairs for maps; bytes that follow for the others. */
interface Head {
  readonly shape: Shape
  readonly count: number
  readonly at: number
}

class MsgpackWalk {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  arrayHead(): Head | undefined {
    const head = this.#head()
    return head.shape === 'array' ? head : undefined
  }

  /** Steps over one value, however deep, and answers where it ends. */
  skip(): number {
    for (let open = 1; open > 0; open--) {
      const { shape, count } = this.#head()
      if (shape === 'array') open += count
      else if (shape === 'map') open += 2 * count
      if (open > this.#bytes.length - this.#at + 1) throw malformed('a length is larger than what follows')
    }
    return this.#at
  }

  /** The first thing that may not be in one value. */
  inspect(depth: number): PayloadIssue | undefined {
    const { shape, count } = this.#head()
    if (shape === 'extension') return { pointer: '', detail: 'is an extension type that is not allowed' }
    if (shape !== 'array' && shape !== 'map') return undefined
    if (depth === 0) return { pointer: '', detail: `is nested deeper than ${DEPTH_MAX} levels` }
    for (let i = 0; i < count; i++) {
      const key = shape === 'map' ? this.#key() : String(i)
      if (key === undefined) return { pointer: '', detail: 'has a key that is not a text' }
      if (shape === 'map' && isForbiddenKey(key))
        return { pointer: `/${key}`, detail: 'is a key that is not allowed' }
      const issue = this.inspect(depth - 1)
      if (issue !== undefined)
        return { pointer: `/${key.slice(0, 80)}${issue.pointer}`, detail: issue.detail }
    }
    return undefined
  }

  #key(): string | undefined {
    const { shape, count } = this.#head()
    return shape === 'text' ? this.#bytes.toString('utf8', this.#at - count, this.#at) : undefined
  }

  /** Reads one header and steps over the bytes that belong to it, children excepted. */
  #head(): Head {
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
    return { shape, count, at: this.#at }
  }

  /** A timestamp has 4, 8 or 12 bytes. */
  #extension(length: number): Head {
    const type = this.#uint(1)
    this.#step(length)
    const isTimestamp = type === TIMESTAMP_EXTENSION && (length === 4 || length === 8 || length === 12)
    return { shape: isTimestamp ? 'scalar' : 'extension', count: length, at: this.#at }
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
