/**
 * Why a command became a dead letter; a closed set, for status, dead letters, telemetry and metrics.
 *
 *   rejected   its handler said that trying again makes no sense
 *   failed     it failed as often as it may
 *   crashed    it was running in every worker that died of it
 *   expired    its deadline had passed before it could run; its handler was not called
 */
export const DEAD_REASONS = ['rejected', 'failed', 'crashed', 'expired'] as const
export type DeadReason = (typeof DEAD_REASONS)[number]
