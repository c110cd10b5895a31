/**
 * Command ids tell where the command is: `<stream>.<partition>.<token>.<checksum>`.
 *
 * A token is `e<entry id>` for a command that was appended at once, `x<counter>` for one that was delayed or scheduled.
 * The checksum is 66 bits of HMAC-SHA-256 over the rest and the tenant, so an invented id is not found instead of "done".
 */
import { timingSafeEqual } from 'node:crypto'
import { MillraceError } from '../contracts/errors.ts'

/** Until credentials name one, everything belongs to this tenant. */
export const DEFAULT_TENANT = 'default'

const ID =
  /^([a-z0-9][a-z0-9_-]{0,62})\.(\d{1,3})\.((?:e\d{1,15}-\d{1,15})|(?:x\d{1,15}))\.([A-Za-z0-9_-]{11})$/
const CHECKSUM_CHARS = 11

export interface CommandPosition {
  readonly stream: string
  readonly partition: number
  readonly token: string
}

export class CommandIds {
  /** Hashers are copied, which is three times as fast as keying a new one. */
  readonly #keyed: Bun.CryptoHasher
  readonly #places = new Map<string, Bun.CryptoHasher>()

  constructor(secret: Buffer) {
    this.#keyed = new Bun.CryptoHasher('sha256', secret)
  }

  format(stream: string, partition: number, token: string, tenant: string = DEFAULT_TENANT): string {
    const place = `${stream}.${partition}`
    return `${place}.${token}.${checksumOf(this.#remembered(`${tenant}|${place}.`), token)}`
  }

  /**
   * @throws MillraceError `command.malformed` when it can't be an id, `not-found` when it was never issued to this tenant
   */
  parse(id: string, tenant: string = DEFAULT_TENANT): CommandPosition {
    const match = ID.exec(id)
    if (match === null) {
      throw new MillraceError(
        'command.malformed',
        'This is not a command id; use the id that the 202 answer gave.',
      )
    }
    const [, stream = '', partition = '', token = '', checksum = ''] = match
    const expected = checksumOf(this.#hasherOf(`${tenant}|${stream}.${partition}.`), token)
    if (!timingSafeEqual(Buffer.from(checksum), Buffer.from(expected))) {
      throw new MillraceError('not-found', 'No such command.')
    }
    return { stream, partition: Number(partition), token }
  }

  /** Only for places that exist: what a request names is not kept. */
  #remembered(place: string): Bun.CryptoHasher {
    const known = this.#places.get(place)
    if (known !== undefined) return known
    const hasher = this.#hasherOf(place)
    this.#places.set(place, hasher)
    return hasher
  }

  /** A hasher that has taken in everything but the token. */
  #hasherOf(place: string): Bun.CryptoHasher {
    return this.#places.get(place) ?? this.#keyed.copy().update(place)
  }
}

function checksumOf(hasher: Bun.CryptoHasher, token: string): string {
  return hasher.copy().update(token).digest('base64url').slice(0, CHECKSUM_CHARS)
}
