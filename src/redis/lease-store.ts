/**
 * What Redis knows of a lease: owner, epoch, beat. Every write can be repeated after a lost answer. Nothing expires here: a
 * holder is silent when its beat stands still before an observer's eyes, and the take script compares what was seen.
 */
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { leaseKey } from './keys.ts'

/** The state of a lease as one look found it. */
export interface LeaseSight {
  /** '' when it is free. */
  readonly owner: string
  readonly epoch: number
  readonly beat: string
  /** How long its owner may be silent before it loses the lease. */
  readonly takeoverMs: number
}

export interface LeaseTake extends LeaseSight {
  readonly mine: boolean
}

/** Takes the lease if it is free, or if its state is still `silent`; answers its state either way. */
export async function takeLease(
  link: RedisLink,
  name: string,
  me: { readonly owner: string; readonly takeoverMs: number },
  silent: LeaseSight | undefined,
): Promise<LeaseTake> {
  const seen = silent === undefined ? ['', '', ''] : [silent.owner, silent.epoch, silent.beat]
  const reply = replyArray(await link.run('lease-take', [leaseKey(name)], [me.owner, me.takeoverMs, ...seen]))
  return {
    mine: replyText(reply[0]) === '1',
    owner: replyText(reply[1]),
    epoch: replyNumber(reply[2]),
    beat: replyText(reply[3]),
    takeoverMs: replyNumber(reply[4]),
  }
}

export interface LeaseHold {
  readonly owner: string
  readonly epoch: number
}

/** `taken`: somebody else has it, or had it since. `gone`: Redis has lost it. */
export async function renewLease(
  link: RedisLink,
  name: string,
  { owner, epoch }: LeaseHold,
): Promise<'held' | 'taken' | 'gone'> {
  const answer = replyText(await link.run('lease-renew', [leaseKey(name)], [owner, epoch]))
  return answer === 'held' || answer === 'gone' ? answer : 'taken'
}

/** False when it was somebody else's by then. */
export async function releaseLease(
  link: RedisLink,
  name: string,
  { owner, epoch }: LeaseHold,
): Promise<boolean> {
  return replyNumber(await link.run('lease-release', [leaseKey(name)], [owner, epoch])) === 1
}
