#!/usr/bin/env bun
/**
 * `bun run bench`: throughput and latency of real processes, each against a baseline of the same run that does the same
 * Redis or HTTP work with no runtime around it.
 *
 *   scenario ─▶ round ─▶ baseline, Millrace ─▶ pair ─▶ median of the ratios ─▶ budget
 */
import { Bench, tell } from './bench/bench.ts'
import { parseOptions } from './bench/options.ts'
import { runToTheEnd } from './fleet/interruptible.ts'

process.exit(await runToTheEnd(() => new Bench(parseOptions(process.argv.slice(2))), tell))
