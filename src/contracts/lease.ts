/**
 * A lease: the right of one process of the fleet to do something that must not be done twice at once.
 *
 *   waiting ──▶ held ──▶ lost       somebody else took it, or Redis could not be asked for too long
 *                 └────▶ released
 *
 * While it is held no other process holds it, as far as a process can know (docs/leases.md tells how far). What the
 * holder writes elsewhere should carry the epoch, and whoever stores it refuses an epoch lower than one it has seen: that
 * is what stops a holder that was frozen in the middle of a write.
 */
import { MillraceError } from './errors.ts'
import { checkKnownOptions, checkPlainName, checkWhole } from './names.ts'

export interface LeaseOptions {
  /**
   * How long the holder may be silent before another process takes over, 1000-600 000 ms. Default 5000. A takeover comes
   * 0.8 to 1.7 times this after a death; a Redis that is away for less than 0.6 times this costs nobody the lease. A contender goes
   * by the holder's figure when that is longer.
   */
  readonly takeoverMs?: number
  /** Longest wait for the lease, 0-86 400 000 ms; 0 asks once. Default: as long as it takes. */
  readonly waitMs?: number
  /** Ends the waiting; a lease that is held already is not touched. */
  readonly signal?: AbortSignal
}

/** A held lease. Disposing releases it. */
export interface Lease extends AsyncDisposable {
  readonly name: string
  /**
   * The fencing token: higher than every epoch this lease ever had, in any process. A whole number below 2^53 with gaps;
   * store it in 64 bits.
   */
  readonly epoch: number
  /**
   * Aborts before anybody else can hold the lease, on the first turn of the event loop after that time; its reason is a
   * MillraceError `lease.lost`. Also aborts on release.
   */
  readonly signal: AbortSignal
  /** True while the lease is ours, judged by the monotonic clock at this very moment: also right after a freeze. */
  readonly held: boolean
  /** Call it right before each act. @throws MillraceError `lease.lost` unless `held` */
  assertHeld(): void
  /**
   * Aborts the signal, then frees the lease for others. Twice is fine. Never rejects: when Redis can't be asked, others
   * take over after `takeoverMs`.
   */
  release(): Promise<void>
}

export interface ResolvedLeaseOptions {
  readonly takeoverMs: number
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
}

const KNOWN = ['takeoverMs', 'waitMs', 'signal']
const TAKEOVER_MS = 5000

/** @throws MillraceError `definition.invalid`, `config.unknown-option` */
export function resolveLeaseOptions(name: string, options: LeaseOptions): ResolvedLeaseOptions {
  checkPlainName('Lease', name)
  checkKnownOptions('lease', options, KNOWN)
  const { signal, waitMs } = options
  return {
    takeoverMs: checkTakeoverMs(name, options.takeoverMs),
    waitMs:
      waitMs === undefined
        ? Number.POSITIVE_INFINITY
        : checkWhole(`"waitMs" of lease "${name}"`, waitMs, 0, 86_400_000),
    signal,
  }
}

/** @throws MillraceError `definition.invalid` */
export function checkTakeoverMs(name: string, takeoverMs: number = TAKEOVER_MS): number {
  return checkWhole(`"takeoverMs" of lease "${name}"`, takeoverMs, 1000, 600_000)
}

/** The reason of a lost lease's signal. */
export function leaseLost(name: string, why: string): MillraceError {
  return new MillraceError(
    'lease.lost',
    `Lease "${name}" ${why}. Stop what depends on it, and ask for it again.`,
  )
}
