#!/usr/bin/env bun
/**
 * `bun run replay`: three million real flight records go in as commands over HTTP, and what comes out as views must equal
 * a direct aggregation of the same records, whatever was killed on the way.
 *
 *   records ─▶ producer ─▶ HTTP API ─▶ workers ─▶ projector ─▶ views over HTTP ─▶ compared with the reference
 *                 │ ids                   ▲ SIGKILL                                     ▲
 *                 └──▶ ledger ────────────┴── compared with the events in Redis         └── records
 */
import { runToTheEnd } from './fleet/interruptible.ts'
import { parseOptions } from './replay/options.ts'
import { Replay } from './replay/replay.ts'
import { tell } from './replay/standing.ts'

process.exit(await runToTheEnd(() => new Replay(parseOptions(process.argv.slice(2))), tell))
