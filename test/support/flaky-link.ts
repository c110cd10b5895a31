/** A command connection that loses, delays or swallows scripts on purpose. */
import { MillraceError } from '../../src/contracts/errors.ts'
import { type ConnectionOptions, RedisLink } from '../../src/redis/connection.ts'
import type { ScriptName } from '../../src/redis/scripts.ts'

export class FlakyLink extends RedisLink {
  /** Scripts of this name never reach Redis, and don't answer before `release`. */
  swallow: ScriptName | undefined
  swallowed = 0
  /** Reads that are called this wait for `release`. */
  holdBefore: string | undefined
  held = 0
  /** The next script of this name runs, and its answer is lost. */
  loseNextAnswerOf: ScriptName | undefined
  readonly #flaky: readonly ScriptName[]
  readonly #held = Promise.withResolvers<void>()
  #state: number

  constructor(options: ConnectionOptions, seed: number, flaky: readonly ScriptName[]) {
    super('command', options)
    this.#flaky = flaky
    this.#state = seed
  }

  release(): void {
    this.holdBefore = undefined
    this.swallow = undefined
    this.#held.resolve()
  }

  override async run(
    name: ScriptName,
    keys: readonly string[],
    args: readonly (string | Buffer | number)[],
  ): Promise<unknown> {
    if (name === this.swallow) {
      this.swallowed += 1
      await this.#held.promise
      throw lost()
    }
    if (name === this.loseNextAnswerOf) {
      this.loseNextAnswerOf = undefined
      await super.run(name, keys, args)
      throw lost()
    }
    const dice = this.#flaky.includes(name) ? this.#random() : 1
    if (dice < 0.05) throw lost()
    if (dice < 0.1) {
      await super.run(name, keys, args)
      throw lost()
    }
    if (dice < 0.15) {
      void Bun.sleep(5 + 60 * this.#random()).then(() => super.run(name, keys, args).catch(() => undefined))
      throw lost()
    }
    return await super.run(name, keys, args)
  }

  override async use<Result>(
    what: string,
    work: (client: RedisLink['client']) => Promise<Result>,
  ): Promise<Result> {
    if (what === this.holdBefore) {
      this.held += 1
      await this.#held.promise
    }
    return await super.use(what, work)
  }

  /** mulberry32 */
  #random(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

function lost(): MillraceError {
  return new MillraceError('redis.unknown', 'The answer was lost on purpose.')
}
