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
import { runToTheEnd } from './fleet/interruptible.ts'

process.exit(await runToTheEnd(() => new Faults(parseOptions(process.argv.slice(2))), tell))
