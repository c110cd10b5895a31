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

  /** What the checksums are keyed with; the same in the whole fleet. */
  readonly secret: Buffer

  constructor(secret: Buffer) {
    this.secret = secret
    this.#keyed = new Bun.CryptoHasher('sha256', secret)
  }

  format(stream: string, partition: number, token: string, tenant: string = DEFAULT_TENANT): string {
    return this.formatter(stream, partition, tenant)(token)
  }

  /** Formats many ids of one partition: keep it where they are made. */
  formatter(stream: string, partition: number, tenant: string = DEFAULT_TENANT): (token: string) => string {
    const place = `${stream}.${partition}.`
    const hasher = this.#hasherOf(tenant, place)
    return (token) => `${place}${token}.${checksumOf(hasher, token)}`
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
    const expected = checksumOf(this.#hasherOf(tenant, `${stream}.${partition}.`), token)
    if (!timingSafeEqual(Buffer.from(checksum), Buffer.from(expected))) {
      throw new MillraceError('not-found', 'No such command.')
    }
    return { stream, partition: Number(partition), token }
  }

  /** A hasher that has taken in everything but the token. */
  #hasherOf(tenant: string, place: string): Bun.CryptoHasher {
    return this.#keyed.copy().update(`${tenant}|${place}`)
  }
}

function checksumOf(hasher: Bun.CryptoHasher, token: string): string {
  return hasher.copy().update(token).digest('base64url').slice(0, CHECKSUM_CHARS)
}
