#!/usr/bin/env bun
/**
 * `bun run faults`: real processes under load, real signals, a Redis that dies and comes back, and a count from ledgers that
 * stand outside of it all: what was accepted, every handler call, every effect.
 *
 *   producer ─▶ HTTP API ─▶ Redis ─▶ workers ─▶ events ─▶ views
 *      │ 202s        ▲        ▲         ▲ calls     │         │
 *      ▼             └─ kill ─┴─ pause ─┘ ▼         ▼         ▼
 *   ledger ──────────────────────────▶ account ◀────┴─────────┘
 */
import { Faults, tell } from './faults/faults.ts'
import { parseOptions } from './faults/options.ts'
import { RunError } from './fleet/failure.ts'

function say(error: unknown): number {
  if (error instanceof RunError) {
    tell(error.message)
    return error.exitCode
  }
  console.error(error)
  return 1
}

async function main(): Promise<number> {
  const faults = new Faults(parseOptions(process.argv.slice(2)))
  let heardAtMs: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      // `bun run` may pass on what the terminal had already sent to all of us: an echo, not a second word.
      if (heardAtMs !== undefined && performance.now() - heardAtMs < 300) return
      if (heardAtMs !== undefined) {
        faults.abandon()
        process.exit(130)
      }
      heardAtMs = performance.now()
      tell(`${signal}, ending what was started; once more to end now`)
      faults.interrupt()
    })
  }
  try {
    return await faults.run()
  } finally {
    await faults.end()
  }
}

process.exit(await main().catch(say))
