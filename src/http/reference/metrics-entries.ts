/** What is told of the metrics that the admin listener gives to Prometheus. */
import { type RouteFamily, TEXT } from './route-entry.ts'

export const METRICS_ROUTES: RouteFamily = {
  name: 'Metrics',
  description: 'For Prometheus and what understands its formats.',
  routes: [
    {
      route: 'metrics',
      method: 'GET',
      path: '/metrics',
      summary: 'Metrics of this process and of the streams',
      description: 'OpenMetrics for `Accept: application/openmetrics-text`, else the text format.',
      answers: [
        {
          status: 200,
          description: 'One line for each series.',
          contents: { 'text/plain': TEXT, 'application/openmetrics-text': TEXT },
        },
      ],
      problems: ['internal-error'],
      scope: 'admin',
    },
  ],
}
