/**
 * What this process may take of one count of one rate limit: a stock of tokens held in advance, and requests that wait for
 * Redis.
 *
 *   take ──stock──▶ yes, at once          below half of what it should be, the stock is filled up behind the request
 *     │
 *     ├──nothing is free until …──▶ no, at once
 *     └──else──▶ waits for one call; all that wait together are one call
 *
 * Uses are told with the next call, at the latest after `reportMs`. A stock that nobody uses goes back after half a second,
 * and what a process that died held is counted as used a second later. When Redis does not answer, everything is let through
 * for a while: where it matters, what comes next needs Redis itself.
 */
import { fadeRate, type LeasePlan, planLeases, quotaSize, stockTarget } from '../policies/quota.ts'
import type { QuotaAnswer, QuotaCall, QuotaCount } from '../redis/limit-store.ts'
import type { Clock, Timer } from '../runtime/clock.ts'

/** Plain numbers of one policy, added up over its counts. */
export interface PolicyTally {
  admitted: number
  /** Of these, taken in vain: another limit refused. */
  returned: number
  refused: number
  /** Let through because Redis did not answer. */
  unchecked: number
  calls: number
  /** Tokens taken to hold, ever. */
  leased: number
  /** Tokens held now. */
  held: number
}

export interface AllotmentParts {
  readonly count: QuotaCount
  readonly tally: PolicyTally
  readonly clock: Clock
  /** Of this process. */
  readonly holder: string
  readonly call: (count: QuotaCount, call: QuotaCall) => Promise<QuotaAnswer>
  readonly onRefused: (count: number) => void
  /** Nothing is held, and nobody came for a while. */
  readonly onIdle: () => void
}

interface Waiter {
  readonly wanted: number
  readonly least: number
  readonly settle: (granted: number) => void
}

const HOLD_MS = 1000
/** Before a second is over by Redis's count, our own clock must have given up the stock. */
const STOCK_TRUST_MS = 950
const IDLE_MS = 500
/** So long a request waits for an answer, in two steps: between them what came while this process stood still is read. */
const ANSWER_STEP_MS = 125
/** After that nobody asks for a while. */
const BLIND_MS = 250
/** Somebody else may give back what was not there: look again after so long at the latest. */
const BLOCK_MS_MAX = 250
const WAITERS_MAX = 10_000

export class Allotment {
  readonly #parts: AllotmentParts
  readonly #plan: LeasePlan
  readonly #size: number
  #generation = 0
  #stock = 0
  #used = 0
  #back = 0
  #stockUntilMs = 0
  /** Free in Redis at the last answer. */
  #free: number
  #nextAtMs = 0
  #largest = 1
  #largestAtMs = 0
  #blockedUntilMs = 0
  #blindUntilMs = 0
  #waiters: Waiter[] = []
  #calling: Promise<void> | undefined
  /** Since the last call: tokens that went out. */
  #wentOut = 0
  #perMs = 0
  #target = 0
  #calledMs = 0
  #touchedMs = 0
  #timer: Timer | undefined
  /** False: it only watches for the end. */
  #isReportDue = false

  constructor(parts: AllotmentParts) {
    this.#parts = parts
    this.#plan = planLeases(parts.count.quota)
    this.#size = quotaSize(parts.count.quota)
    this.#free = this.#size
    this.#calledMs = parts.clock.monotonicMs()
  }

  /**
   * Takes up to `wanted` tokens, and none rather than fewer than `least`. Answers how many; a promise only when Redis must be
   * asked. Never rejects.
   */
  take(wanted: number, least: number): number | Promise<number> {
    const nowMs = this.#parts.clock.monotonicMs()
    this.#touchedMs = nowMs
    if (nowMs >= this.#stockUntilMs && this.#stock > 0) this.#forget()
    if (this.#waiters.length === 0) {
      if (this.#stock >= wanted) return this.#fromStock(wanted, nowMs)
      if (nowMs < this.#blindUntilMs) return this.#unchecked(wanted)
      if (nowMs < this.#blockedUntilMs) {
        const tokens = this.#stock >= least ? this.#stock : 0
        if (tokens < wanted) this.#refuse(wanted - tokens)
        return tokens === 0 ? 0 : this.#fromStock(tokens, nowMs)
      }
    }
    if (this.#waiters.length >= WAITERS_MAX) return this.#refuse(wanted)
    return new Promise((settle) => {
      this.#waiters.push({ wanted, least, settle })
      if (this.#calling === undefined) this.#call(nowMs)
    })
  }

  /** Tokens that were taken and not used. */
  giveBack(tokens: number): void {
    if (tokens === 0) return
    this.#parts.tally.returned += tokens
    // While nobody could be asked, Redis was told of none of them.
    if (this.#parts.clock.monotonicMs() < this.#blindUntilMs) return
    this.#back += tokens
    this.#blockedUntilMs = 0
    this.#schedule()
  }

  /** True when a request that came now would be refused without asking. */
  get isExhausted(): boolean {
    return this.#stock === 0 && this.#parts.clock.monotonicMs() < this.#blockedUntilMs
  }

  get size(): number {
    return this.#size
  }

  /** What is left, as far as this process knows. */
  get remaining(): number {
    return Math.max(0, Math.min(this.#size, this.#free + this.#stock))
  }

  /** Until there is more. */
  get nextMs(): number {
    return Math.max(0, this.#nextAtMs - this.#parts.clock.monotonicMs())
  }

  /** Until so many were there, if nobody else took any. */
  untilMs(tokens: number): number {
    const isKnown = tokens > 1 && tokens <= this.#largest
    return Math.max(0, (isKnown ? this.#largestAtMs : this.#nextAtMs) - this.#parts.clock.monotonicMs())
  }

  /** Gives back what is held; resolves when Redis knows, or does not answer. */
  async close(): Promise<void> {
    this.#touchedMs = Number.NEGATIVE_INFINITY
    await this.#calling
    if (this.#stock > 0 || this.#used > 0 || this.#back > 0) this.#call(this.#parts.clock.monotonicMs())
    await this.#calling
    this.#cancelTimer()
  }

  #fromStock(tokens: number, nowMs: number): number {
    this.#handOut(tokens)
    if (this.#stock * 2 < this.#target && this.#calling === undefined && nowMs >= this.#blockedUntilMs) {
      this.#call(nowMs)
    } else if (!this.#isReportDue) {
      this.#schedule()
    }
    return tokens
  }

  #unchecked(tokens: number): number {
    this.#parts.tally.unchecked += tokens
    this.#parts.tally.admitted += tokens
    return tokens
  }

  #refuse(tokens: number): number {
    this.#parts.tally.refused += tokens
    this.#parts.onRefused(tokens)
    return 0
  }

  #setStock(tokens: number): void {
    this.#parts.tally.held += tokens - this.#stock
    this.#stock = tokens
  }

  /** Redis counts as used what this process held and did not speak of in time; it goes on under another name. */
  #forget(): void {
    this.#setStock(0)
    this.#used = 0
    this.#back = 0
    this.#generation += 1
  }

  #call(nowMs: number): void {
    this.#cancelTimer()
    const isIdle = nowMs - this.#touchedMs >= IDLE_MS
    this.#perMs = fadeRate(this.#perMs, this.#wentOut, nowMs - this.#calledMs)
    this.#target = isIdle ? 0 : stockTarget(this.#plan, this.#perMs)
    this.#calledMs = nowMs
    this.#wentOut = 0
    const waiters = this.#waiters
    this.#waiters = []
    let [need, largest] = [0, 1]
    for (const { wanted, least } of waiters) {
      need += wanted
      if (least > largest) largest = least
    }
    const kept = Math.min(this.#stock, this.#target)
    this.#setStock(kept)
    const call: QuotaCall = {
      holder: `${this.#parts.holder}.${this.#generation}`,
      ...{ used: this.#used, kept, back: this.#back, need: Math.min(need, this.#size), largest },
      // Where uses are told anyway, they count from then: an answer may be long on its way.
      ...{ isSpent: !this.#plan.isLeased, wish: this.#target - kept, holdMs: HOLD_MS },
    }
    this.#used = 0
    this.#back = 0
    this.#calling = this.#answered(call, waiters, nowMs)
  }

  async #answered(call: QuotaCall, waiters: readonly Waiter[], askedMs: number): Promise<void> {
    const { clock, count, tally } = this.#parts
    tally.calls += 1
    const generation = this.#generation
    let answer: QuotaAnswer | undefined
    const limit = Promise.withResolvers<undefined>()
    let timer = clock.after(ANSWER_STEP_MS, () => {
      timer = clock.after(ANSWER_STEP_MS, () => limit.resolve(undefined))
    })
    try {
      answer = await Promise.race([this.#parts.call(count, call), limit.promise])
    } catch {
      answer = undefined
    }
    timer.cancel()
    this.#calling = undefined
    const nowMs = clock.monotonicMs()
    if (answer === undefined) this.#goBlind(waiters, nowMs)
    else this.#learn(answer, call, waiters, { askedMs, nowMs, isLate: generation !== this.#generation })
    this.#serveLate(nowMs)
  }

  #goBlind(waiters: readonly Waiter[], nowMs: number): void {
    this.#forget()
    this.#blindUntilMs = nowMs + BLIND_MS
    for (const { wanted, settle } of waiters) settle(this.#unchecked(wanted))
  }

  /**
   * Of an answer that is late, because the stock was given up meanwhile, only what waits may use what it needs: all of it was
   * granted to the old name, and will count as used.
   */
  #learn(
    answer: QuotaAnswer,
    call: QuotaCall,
    waiters: readonly Waiter[],
    {
      askedMs,
      nowMs,
      isLate,
    }: { readonly askedMs: number; readonly nowMs: number; readonly isLate: boolean },
  ): void {
    const { free, nextMs, largestMs, granted } = answer
    this.#free = free
    this.#nextAtMs = nowMs + nextMs
    this.#largest = call.largest
    this.#largestAtMs = nowMs + largestMs
    const blockMs = Math.min(BLOCK_MS_MAX, Math.max(nextMs, this.#plan.pauseMs))
    this.#blockedUntilMs = free === 0 ? askedMs + blockMs : 0
    const needed = Math.min(call.need, granted)
    let left = needed
    for (const waiter of waiters) left -= this.#serve(waiter, left)
    if (isLate) return
    this.#stockUntilMs = askedMs + STOCK_TRUST_MS
    this.#parts.tally.leased += granted - needed
    this.#setStock(this.#stock + granted - needed)
    if (!call.isSpent) {
      this.#used += needed - left
      this.#setStock(this.#stock + left)
    } else if (left > 0) {
      this.#back += left
      this.#blockedUntilMs = 0
    }
  }

  /** Settles with as many of the tokens as fit; answers how many. */
  #serve({ wanted, least, settle }: Waiter, tokens: number): number {
    const given = Math.min(wanted, tokens)
    if (given < least) {
      settle(this.#refuse(wanted))
      return 0
    }
    this.#wentOut += given
    this.#parts.tally.admitted += given
    if (given < wanted) this.#refuse(wanted - given)
    settle(given)
    return given
  }

  /** Who came while the answer was under way. */
  #serveLate(nowMs: number): void {
    while (this.#waiters.length > 0) {
      const [first] = this.#waiters
      if (first === undefined) break
      if (this.#stock >= first.wanted) {
        this.#waiters.shift()
        first.settle(this.#handOut(first.wanted))
      } else if (nowMs < this.#blindUntilMs) {
        this.#waiters.shift()
        first.settle(this.#unchecked(first.wanted))
      } else if (nowMs < this.#blockedUntilMs) {
        this.#waiters.shift()
        const tokens = this.#stock >= first.least ? this.#stock : 0
        if (tokens < first.wanted) this.#refuse(first.wanted - tokens)
        first.settle(this.#handOut(tokens))
      } else {
        this.#call(nowMs)
        return
      }
    }
    this.#schedule()
  }

  #handOut(tokens: number): number {
    this.#setStock(this.#stock - tokens)
    this.#used += tokens
    this.#wentOut += tokens
    this.#parts.tally.admitted += tokens
    return tokens
  }

  /** One timer at a time: for uses to tell, then for a stock to give back, then for the end. */
  #schedule(): void {
    if (this.#calling !== undefined) return
    const isReport = this.#used > 0 || this.#back > 0
    if (this.#timer !== undefined && (this.#isReportDue || !isReport)) return
    this.#timer?.cancel()
    this.#isReportDue = isReport
    const pauseMs = isReport ? this.#plan.reportMs : IDLE_MS
    this.#timer = this.#parts.clock.after(pauseMs, () => this.#onTimer())
  }

  #cancelTimer(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#isReportDue = false
  }

  #onTimer(): void {
    this.#cancelTimer()
    if (this.#calling !== undefined) return
    const nowMs = this.#parts.clock.monotonicMs()
    if (nowMs >= this.#stockUntilMs && this.#stock > 0) this.#forget()
    if (this.#used > 0 || this.#back > 0 || this.#stock > 0) this.#call(nowMs)
    else if (nowMs - this.#touchedMs >= IDLE_MS && nowMs >= this.#blockedUntilMs) this.#parts.onIdle()
    else this.#schedule()
  }
}
