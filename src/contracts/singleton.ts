/**
 * A singleton: something that runs in one process of the fleet at a time, for as long as that process holds its lease.
 *
 *   waiting for the lease ──▶ running ──▶ ended, threw, or lost the lease ──▶ pause ──▶ waiting …
 */
import { MillraceError } from './errors.ts'
import { checkTakeoverMs, type Lease } from './lease.ts'
import type { Logger } from './logger.ts'
import { checkKnownOptions, checkPlainName, checkWhole } from './names.ts'

export interface SingletonContext {
  readonly logger: Logger
}

/** Runs until it is done or `lease.signal` aborts, and returns soon after that. */
export type SingletonRun = (lease: Lease, context: SingletonContext) => Promise<void> | void

export interface SingletonOptions {
  /** Also the name of its lease. */
  readonly name: string
  readonly run: SingletonRun
  /** How long its process may be silent before another takes over, 1000-600 000 ms. Default 5000. */
  readonly takeoverMs?: number
  /**
   * Pause after a run, before any process starts the next, 0-86 400 000 ms; half as much again at random. Default 1000. A
   * run that threw is followed by a longer one, up to 30 s.
   */
  readonly pauseMs?: number
}

export interface SingletonDefinition {
  readonly kind: 'singleton'
  readonly name: string
  readonly run: SingletonRun
  readonly takeoverMs: number
  readonly pauseMs: number
}

const KNOWN = ['name', 'run', 'takeoverMs', 'pauseMs']

/**
 * Declares a singleton; the workers of the fleet share it among them.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineSingleton(options: SingletonOptions): SingletonDefinition {
  checkKnownOptions('defineSingleton', options, KNOWN)
  const name = checkPlainName('Singleton', options.name)
  if (typeof options.run !== 'function') {
    throw new MillraceError('definition.invalid', `"run" of singleton "${name}" must be a function.`)
  }
  return Object.freeze({
    kind: 'singleton',
    name,
    run: options.run,
    takeoverMs: checkTakeoverMs(name, options.takeoverMs),
    pauseMs: checkWhole(`"pauseMs" of singleton "${name}"`, options.pauseMs ?? 1000, 0, 86_400_000),
  })
}
