#!/usr/bin/env bun
/**
 * `bun run fuzz`: hostile requests, drawn from a seed, to every route of both listeners of a real process, and an account of what
 * was answered, stored, logged and held. `bun run fuzz slow` opens a thousand slow connections and asks what honest ones feel.
 *
 *   seed ─▶ case ─▶ bytes ─▶ API process ─▶ answer ─▶ oracle
 *                                 │ 202             ▲
 *                                 ▼                 │
 *                               Redis ──────────▶ account, log, memory, metrics
 */
import { runToTheEnd } from './fleet/interruptible.ts'
import { Fuzz, tell } from './fuzz/fuzz.ts'
import { parseOptions } from './fuzz/options.ts'
import { SlowClients } from './fuzz/slow-clients.ts'

process.exit(
  await runToTheEnd(() => {
    const options = parseOptions(process.argv.slice(2))
    return options.isSlow ? new SlowClients(options) : new Fuzz(options)
  }, tell),
)
