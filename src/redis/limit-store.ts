/**
 * The counts of rate limits in Redis, one script a call. A count is named by a digest of its rule and of whom it counts, so a
 * rule that changed begins anew, and no name from a request becomes part of a key. Counts expire when nothing is left of them.
 */
import type { Quota } from '../policies/quota.ts'
import { replyArray, replyNumber } from './bytes.ts'
import type { ScriptRunner } from './connection.ts'
import { type LimitKeys, limitKeys } from './keys.ts'

/** What a process tells and asks of one count. */
export interface QuotaCall {
  /** This process; another name after each answer that was lost. */
  readonly holder: string
  /** Of the tokens that it held after its last call: used since, and kept for later. The rest comes back. */
  readonly used: number
  readonly kept: number
  /** Tokens that it was granted for use at once, and did not use. */
  readonly back: number
  /** To be used at once, as many as there are. */
  readonly need: number
  /** They count as used from now; else they are held, and told as used with the next call. */
  readonly isSpent: boolean
  /** To be held beside them. */
  readonly wish: number
  /** The most that must come together. */
  readonly largest: number
  /** Without a call for this long, what is held is gone, ms. */
  readonly holdMs: number
}

export interface QuotaAnswer {
  readonly granted: number
  /** Free after this. */
  readonly free: number
  /** Until there is more; 0: nothing is used. */
  readonly nextMs: number
  /** Until `largest` are free, if nobody takes any. */
  readonly largestMs: number
}

/** One count, and how it is called. */
export interface QuotaCount {
  readonly quota: Quota
  readonly keys: LimitKeys
}

const DIGEST_CHARS = 22
const SLOTS = 500

export function quotaCount(quota: Quota, name: readonly string[]): QuotaCount {
  const text = JSON.stringify([quota, ...name])
  const digest = new Bun.CryptoHasher('sha256').update(text).digest('base64url').slice(0, DIGEST_CHARS)
  return { quota, keys: limitKeys(digest) }
}

/** @throws MillraceError `redis.unavailable`, `redis.unknown` */
export async function callQuota(
  link: ScriptRunner,
  { quota, keys }: QuotaCount,
  call: QuotaCall,
): Promise<QuotaAnswer> {
  const { holder, used, kept, back, need, wish, holdMs, largest, isSpent } = call
  const args = [holder, used, kept, back, need, wish, holdMs, largest, isSpent ? '1' : '']
  const reply =
    quota.kind === 'bucket'
      ? await link.run('limit-bucket', [keys.state], [quota.burst, quota.ratePerS / 1e6, ...args])
      : await link.run(
          'limit-window',
          [keys.state, keys.log],
          [quota.quota, (quota.windowS * 1e6) / SLOTS, SLOTS, ...args],
        )
  const [granted, free, nextMs, largestMs] = replyArray(reply).map(replyNumber)
  return { granted: granted ?? 0, free: free ?? 0, nextMs: nextMs ?? 0, largestMs: largestMs ?? 0 }
}
