/** What a part of the process tells about itself for `/readyz`. Never asks Redis: it reports what it last saw. */
export interface HealthReport {
  readonly ready: boolean
  /** One sentence for `?verbose`. */
  readonly detail: string
}

export interface HealthSource {
  readonly name: string
  health(): HealthReport
}
