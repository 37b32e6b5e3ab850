"""Rows that cross modules, processes and files: dataclasses whose fields are the keys of their JSON files."""

from animalclf.rows.base import Row, html_table
from animalclf.rows.comparison import (
    ComparedData,
    ComparisonResult,
    ComparisonSummary,
    TrialEntry,
    TrialFailure,
    TrialProgress,
    TrialState,
)
from animalclf.rows.data_problems import DataProblems
from animalclf.rows.evaluation import CalibrationBin, Evaluation, EvaluationResult, PerClass, Unreadable
from animalclf.rows.explain import ExplainResult
from animalclf.rows.export import ExportCheck, ExportResult
from animalclf.rows.labelling import LabelsResult, SuggestResult
from animalclf.rows.leaderboard import (
    EnsemblesResult,
    Leaderboard,
    LeaderboardPair,
    LeaderboardRow,
    ReportResult,
    Spread,
)
from animalclf.rows.planning import ComparisonPlan, Measured, TrainingPlan, TrialPlan
from animalclf.rows.prediction import CrossFitting, EnsembleResult, PredictionResult, SetSizes, VoteResult
from animalclf.rows.training import (
    Environment,
    EpochEnd,
    EpochRow,
    FoldRow,
    HeadRow,
    PhaseProgress,
    ProgressEvent,
    StartupEvent,
    TimeSpent,
    TrainingResult,
)

__all__ = [
    "CalibrationBin",
    "ComparedData",
    "ComparisonPlan",
    "ComparisonResult",
    "ComparisonSummary",
    "CrossFitting",
    "DataProblems",
    "EnsembleResult",
    "EnsemblesResult",
    "Environment",
    "EpochEnd",
    "EpochRow",
    "Evaluation",
    "EvaluationResult",
    "ExplainResult",
    "ExportCheck",
    "ExportResult",
    "FoldRow",
    "HeadRow",
    "LabelsResult",
    "Leaderboard",
    "LeaderboardPair",
    "LeaderboardRow",
    "Measured",
    "PerClass",
    "PhaseProgress",
    "PredictionResult",
    "ProgressEvent",
    "ReportResult",
    "Row",
    "SetSizes",
    "Spread",
    "StartupEvent",
    "SuggestResult",
    "TimeSpent",
    "TrainingPlan",
    "TrainingResult",
    "TrialEntry",
    "TrialFailure",
    "TrialPlan",
    "TrialProgress",
    "TrialState",
    "Unreadable",
    "VoteResult",
    "html_table",
]
