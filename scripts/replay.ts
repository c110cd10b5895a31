#!/usr/bin/env bun
/**
 * `bun run replay`: three million real flight records go in as commands over HTTP, and what comes out as views must equal
 * a direct aggregation of the same records, whatever was killed on the way.
 *
 *   records ─▶ producer ─▶ HTTP API ─▶ workers ─▶ projector ─▶ views over HTTP ─▶ compared with the reference
 *                 │ ids                   ▲ SIGKILL                                     ▲
 *                 └──▶ ledger ────────────┴── compared with the events in Redis         └── records
 */
import { RunError } from './fleet/failure.ts'
import { parseOptions } from './replay/options.ts'
import { Replay } from './replay/replay.ts'
import { tell } from './replay/standing.ts'

function say(error: unknown): number {
  if (error instanceof RunError) {
    tell(error.message)
    return error.exitCode
  }
  console.error(error)
  return 1
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2))
  const replay = new Replay(options)
  let heardAtMs: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      // `bun run` may pass on what the terminal had already sent to all of us: an echo, not a second word.
      if (heardAtMs !== undefined && performance.now() - heardAtMs < 300) return
      if (heardAtMs !== undefined) {
        replay.abandon()
        process.exit(130)
      }
      heardAtMs = performance.now()
      tell(`${signal}, ending what was started; once more to end now`)
      replay.interrupt()
    })
  }
  try {
    return await replay.run()
  } finally {
    await replay.end()
  }
}

process.exit(await main().catch(say))
