"""A taskset of the library verifiers: sums, one question each; the score of the last one breaks."""

import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: str


class SumTask(vf.Task[SumData]):
    @vf.reward(weight=2.0)
    async def right(self, task, trace) -> float:
        if task.answer == "?":
            raise ValueError("nobody knows")
        return float(trace.branches[0].nodes[-1].message.content.strip() == task.answer)

    @vf.metric
    async def asked(self, trace) -> float:
        return float(len(trace.calls))


class SmallSums(vf.Taskset[SumTask, vf.TasksetConfig]):
    def load(self):
        for question, answer in (("12+34", "46"), ("7+15", "22"), ("20+22", "?")):
            data = SumData(prompt=f"What is {question}?", answer=answer)
            yield SumTask(data, self.config.task)


__all__ = ["SmallSums"]
